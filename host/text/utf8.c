#include "text/utf8.h"

#include <string.h>

#include "itera/tokenizer.h"

enum itera_utf8 itera_utf8_next(const char *bytes, size_t length, uint32_t *code, size_t *used)
{
    const unsigned char *p = (const unsigned char *)bytes;
    unsigned char low = 0x80, high = 0xBF;
    size_t need;
    uint32_t value;
    *used = 1;
    if (p[0] < 0x80) {
        *code = p[0];
        return ITERA_UTF8_VALID;
    }
    if (p[0] >= 0xC2 && p[0] <= 0xDF) {
        need = 2;
        value = p[0] & 0x1Fu;
    } else if (p[0] >= 0xE0 && p[0] <= 0xEF) {
        need = 3;
        value = p[0] & 0x0Fu;
        if (p[0] == 0xE0)
            low = 0xA0;
        if (p[0] == 0xED)
            high = 0x9F;
    } else if (p[0] >= 0xF0 && p[0] <= 0xF4) {
        need = 4;
        value = p[0] & 0x07u;
        if (p[0] == 0xF0)
            low = 0x90;
        if (p[0] == 0xF4)
            high = 0x8F;
    } else {
        return ITERA_UTF8_BROKEN;
    }
    for (size_t i = 1; i < need; i++) {
        *used = i;
        if (i == length)
            return ITERA_UTF8_INCOMPLETE;
        if (p[i] < low || p[i] > high)
            return ITERA_UTF8_BROKEN;
        value = value << 6 | (p[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *used = need;
    *code = value;
    return ITERA_UTF8_VALID;
}

size_t itera_utf8_put(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

size_t itera_utf8_valid_prefix(const char *bytes, size_t length)
{
    size_t at = 0;
    while (at < length) {
        /* Eight ASCII bytes at a time: most text is. */
        uint64_t eight;
        while (at + sizeof eight <= length) {
            memcpy(&eight, bytes + at, sizeof eight);
            if (eight & 0x8080808080808080u)
                break;
            at += sizeof eight;
        }
        if (at == length)
            break;
        uint32_t code;
        size_t used;
        if (itera_utf8_next(bytes + at, length - at, &code, &used) != ITERA_UTF8_VALID)
            break;
        at += used;
    }
    return at;
}

bool itera_utf8_is_valid(const char *bytes, size_t length)
{
    return itera_utf8_valid_prefix(bytes, length) == length;
}

size_t itera_utf8_stream_push(struct itera_utf8_stream *stream, const char *bytes, size_t length,
                              char *out)
{
    size_t written = 0;
    for (size_t i = 0; i < length; i++) {
        stream->pending[stream->count++] = (unsigned char)bytes[i];
        /* Until what is pending is nothing or the start of a sequence that may still end well. */
        while (stream->count > 0) {
            uint32_t code;
            size_t used;
            enum itera_utf8 state =
                itera_utf8_next((const char *)stream->pending, stream->count, &code, &used);
            if (state == ITERA_UTF8_INCOMPLETE)
                break;
            if (state == ITERA_UTF8_VALID)
                memcpy(out + written, stream->pending, used);
            else
                memcpy(out + written, "\xEF\xBF\xBD", 3);
            written += state == ITERA_UTF8_VALID ? used : 3;
            stream->count -= (unsigned)used;
            memmove(stream->pending, stream->pending + used, stream->count);
        }
    }
    return written;
}

size_t itera_utf8_stream_finish(struct itera_utf8_stream *stream, char *out)
{
    if (stream->count == 0)
        return 0;
    /* An incomplete sequence is one maximal subpart, hence one replacement. */
    stream->count = 0;
    memcpy(out, "\xEF\xBF\xBD", 3);
    return 3;
}
