/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.globl	check
	.type	check, @function
	.p2align 4
check:
	push	%rbx
#ifdef NEW
	lea	1(%rdi), %ebx
#else
	mov	%edi, %ebx
#endif
	call	take
tail_of_check:
	mov	%ebx, %eax
	pop	%rbx
	ret
	.size	check, . - check
	.globl	other
	.type	other, @function
	.p2align 4
other:
	push	%rbx
	mov	%edi, %ebx
	call	take
	jmp	tail_of_check
	.size	other, . - other
