/* SPDX-License-Identifier: GPL-2.0-only */
#include "kernel.h"

#ifdef NEW
#define MORE , long more
#define GIVE , 3
#else
#define MORE
#define GIVE
#define more 2
#endif

/* Any module may call it. */
noinline long exported(long n MORE) { return take(n, more) + 1; }
asm(".pushsection ___ksymtab+exported, \"a\"\n"
    ".balign 4\n"
    "__ksymtab_exported: .long exported - ., 0, 0\n"
    ".popsection");

/* Called by its address. */
static noinline long by_address(long n MORE) { return take(n, more) + 2; }
struct hooks { void *call; };
struct hooks hooks = { by_address };

/* No other object that was given calls it. */
noinline long unknown(long n MORE) { return take(n, more) + 3; }

/* user.c goes on calling it with the same arguments. */
#ifdef NEW
noinline long stale(long b, long a) { return take(a, b) + 5; }
#else
noinline long stale(long a, long b) { return take(a, b) + 4; }
#endif

/* And the other way round: it stays as it is. */
long elsewhere(long n MORE);
long caller(long n) { return elsewhere(n GIVE) + exported(n GIVE) + by_address(n GIVE) + unknown(n GIVE); }

#ifdef NEW
#define HELPER(n) take(n, 7) + 2
#else
#define HELPER(n) take(n, 6) + 2
#endif
#include "helper.h"
long inlines(long n) { barrier(); return helper(n) + 1; }
