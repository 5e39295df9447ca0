/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

long own_value = 5;
long other_value = 5;
