/* SPDX-License-Identifier: GPL-2.0-only */
#define ORC(at, sp, word) \
	.pushsection .orc_unwind_ip, "a"; .long at - .; .popsection; \
	.pushsection .orc_unwind, "a"; .short sp, 0, word; .popsection

	.text
	.type	before, @function
before:
10:	call	__fentry__
	.pushsection __mcount_loc, "a"
	.quad	10b
	.popsection
	ORC(10b, 8, 0x105)
	push	%rbx
11:	ORC(11b, 16, 0x105)
	call	take
	pop	%rbx
12:	ORC(12b, 8, 0x105)
	jmp	__x86_return_thunk
	.size	before, . - before
13:	ORC(13b, 0, 0)
	.p2align 4
	.globl	check
	.type	check, @function
check:
0:	call	__fentry__
	.pushsection __mcount_loc, "a"
	.quad	0b
	.popsection
	ORC(0b, 8, 0x105)
	push	%rbx
1:	ORC(1b, 16, 0x105)
	mov	%edi, %ebx
#ifdef NEW
	add	$5, %ebx
#endif
	call	before
	cmp	$5, %eax
	je	slow
	pop	%rbx
2:	ORC(2b, 8, 0x105)
	jmp	__x86_return_thunk
	.size	check, . - check
3:	ORC(3b, 0, 0)
	.section .text.unlikely, "ax"
	.type	check.cold, @function
check.cold:
slow:	ORC(slow, 16, 0x105)
	mov	$7, %edi
	call	take
	pop	%rbx
5:	ORC(5b, 8, 0x105)
	jmp	__x86_return_thunk
	.size	check.cold, . - check.cold
