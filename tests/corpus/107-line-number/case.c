/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

int report(const char *func, unsigned int line, long n);
int message(const char *format, const char *file, int line);
int begin(long n, unsigned int line);
#define REPORT(n) report(__func__, __LINE__, n)
#define ASSERT(x) do { if (unlikely(!(x))) message("%s (%d)\n", __FILE__, __LINE__); } while (0)
#define BEGIN(n) begin(n, __LINE__)

#ifdef NEW
#line 103
#else
#line 100
#endif
int by_function(long n)
{
	if (n > 7)
		return REPORT(n +
			      1);
	return take(n, 1) + 1;
}

int by_file(long n)
{
	ASSERT(n > 3);
	ASSERT(n < 30);
	return take(n, 2) + 1;
}

/* Told by the other calls of begin(), which all get their line. */
int by_callee(long n)
{
	int a = BEGIN(n);

	return a + BEGIN(a) + 1;
}

static inline int inner(long n)
{
	return BEGIN(n) + 3;
}

int inlined(long n)
{
	return take(n, inner(n)) + 1;
}

/* A tail call. */
int last(long n)
{
	barrier();
	return REPORT(n);
}
