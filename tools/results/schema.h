/* JSON Schema, as much of draft 2020-12 as docs/bench.schema.json uses. */
#ifndef ITERA_TOOLS_SCHEMA_H
#define ITERA_TOOLS_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Whether `value` (untrusted) has the shape that `schema` (trusted) describes. If not, `message`
 * says where and what: "runs[3].latency_ms.p50: is a string, not a number". Keywords: type, const,
 * enum, required, properties, items, maxItems, maxLength, minimum, exclusiveMinimum, and $ref to
 * "#/$defs/..."; a schema with any other constraint is refused, never half checked. */
bool schema_check(const json_t *schema, const json_t *value, char *message, size_t size);

#endif
