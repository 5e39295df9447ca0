/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

long real_level = 5;
long real_pair[2] = { 6, 7 };
