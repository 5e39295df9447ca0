/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

long foreign_level = 5;
