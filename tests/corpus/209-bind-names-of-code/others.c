/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

long foreign_level = 5;
int in(".data..percpu") foreign_hits = 1;
