/* SPDX-License-Identifier: GPL-2.0-only */
static inline __attribute__((__always_inline__)) long helper(long n)
{
#ifdef NEW
	return take(n, 7) + 2;
#else
	return take(n, 6) + 2;
#endif
}

static inline __attribute__((__always_inline__)) long scale(long n, long by)
{
	return take(n, by) + 2;
}
