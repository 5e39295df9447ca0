/* SPDX-License-Identifier: GPL-2.0-only */
static inline __attribute__((__always_inline__)) long helper(long n)
{
	return HELPER(n);
}
