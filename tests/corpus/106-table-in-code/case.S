/* SPDX-License-Identifier: GPL-2.0-only */
	.section .rodata, "a"
	.p2align 3
	.type	labels, @object
labels:	.quad	.Lone, .Ltwo
	.size	labels, . - labels
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
	mov	labels(,%rbx,8), %rax
	jmp	*%rax
.Lone:	call	take
.Ltwo:	mov	%ebx, %eax
	pop	%rbx
	ret
	.size	check, . - check
	.globl	other
	.type	other, @function
	.p2align 4
other:
	push	%rbx
	mov	%edi, %ebx
	mov	labels+8(%rip), %rax
	jmp	*%rax
	.size	other, . - other
