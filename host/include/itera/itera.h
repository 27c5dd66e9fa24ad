/* All of libitera. */
#ifndef ITERA_ITERA_H
#define ITERA_ITERA_H

#include "itera/bench.h"
#include "itera/check.h"
#include "itera/compress.h"
#include "itera/corpus.h"
#include "itera/describe.h"
#include "itera/device.h"
#include "itera/distill.h"
#include "itera/energy.h"
#include "itera/eval.h"
#include "itera/file.h"
#include "itera/model.h"
#include "itera/session.h"
#include "itera/status.h"
#include "itera/tokenizer.h"
#include "itera/trainer.h"
#include "itera/version.h"

#endif
