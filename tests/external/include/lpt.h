/* SPDX-License-Identifier: GPL-2.0 */
#ifndef LPT_H
#define LPT_H

int lpt_part(int n);
int lpt_twice(int n);

static inline int lpt_weight(int n)
{
	return n * 3;
}

#endif
