/* SPDX-License-Identifier: GPL-2.0-only */
static inline __attribute__((__always_inline__)) long helper(long n)
{
#ifdef NEW
	if (n > 100)
		return 0;
#endif
	return take(n, 7) + 2;
}
