/* SPDX-License-Identifier: GPL-2.0-only */
/* The layout the kernel's macros give to special sections, written anew for these cases. */
#ifndef CORPUS_KERNEL_H
#define CORPUS_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define noinline __attribute__((__noinline__))
#define cold __attribute__((__cold__, __noinline__))
#define used __attribute__((__used__))
#define weak __attribute__((__weak__))
#define in(name) __attribute__((__section__(name)))
#define unlikely(x) __builtin_expect(!!(x), 0)
#define barrier() asm volatile("" ::: "memory")

int _printk(const char *fmt, ...);
int show(const char *text);
int take(long a, long b);
int handle(void *p);

/* struct bug_entry with relative pointers and file names, 12 bytes */
#define WARN_ON(cond) do { if (unlikely(cond)) WARN_HERE(__LINE__, 0x901); } while (0)
#define WARN_HERE(line, flags) \
	asm volatile("1: ud2\n" \
		".pushsection __bug_table, \"aw\"\n" \
		"2: .long 1b - 2b, %c0 - 2b\n" \
		".word %c1, %c2\n" \
		".org 2b + 12\n" \
		".popsection" : : "i" (__FILE__), "i" (line), "i" (flags))

/* struct jump_entry, 16 bytes; branch is the low bit of the key */
#define STATIC_BRANCH(key, branch) ({ \
	__label__ yes, out; int taken = 0; \
	asm goto("1: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n" \
		".pushsection __jump_table, \"aw\"\n" \
		".balign 8\n" \
		".long 1b - ., %l[yes] - .\n" \
		".quad %c0 + %c1 - .\n" \
		".popsection" : : "i" (key), "i" (branch) : : yes); \
	goto out; \
yes:	taken = 1; \
out:	taken; })

#define ALT_ENTRY_12(feature) ".word " #feature "\n"
#define ALT_ENTRY_14(feature) ".long " #feature "\n"
#define ALTERNATIVE_AS(entry, old, new) \
	"661: " old "\n662:\n" \
	".pushsection .altinstructions, \"a\"\n" \
	".long 661b - ., 663f - .\n" entry \
	".byte 662b - 661b, 664f - 663f\n" \
	".popsection\n" \
	".pushsection .altinstr_replacement, \"ax\"\n" \
	"663: " new "\n664:\n" \
	".popsection\n"
#define ALTERNATIVE(old, new, feature) ALTERNATIVE_AS(ALT_ENTRY_12(feature), old, new)

#define LOCK_PREFIX \
	".pushsection .smp_locks, \"a\"\n.balign 4\n.long 671f - .\n.popsection\n671: lock; "

#define EX_TABLE(from, to) \
	".pushsection __ex_table, \"a\"\n.balign 4\n" \
	".long " #from " - ., " #to " - ., 3\n.popsection\n"

#define PARAVIRT_CALL(target, type) \
	"771: call *" #target "\n772:\n" \
	".pushsection .parainstructions, \"a\"\n.balign 8\n" \
	".quad 771b\n.byte " #type ", 772b - 771b\n.balign 8\n.popsection\n"

#define STATIC_CALL(name) \
	"1: call __SCT__" #name "\n" \
	".pushsection .static_call_sites, \"aw\"\n.balign 4\n" \
	".long 1b - ., __SCK__" #name " - .\n.popsection\n"

#define RETPOLINE_CALL(reg) \
	"1: call __x86_indirect_thunk_" #reg "\n" \
	".pushsection .retpoline_sites, \"a\"\n.long 1b - .\n.popsection\n"

#endif
