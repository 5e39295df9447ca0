# Run in a prepared build folder with what kbuild-top.mk recorded: asks kbuild about folders without compiling anything.
#   obj=DIR lpbuild-list        which objects DIR and the folders below it consist of, one file dir-DIR each
#   obj=DIR DIR/x.o DIR/y.o     how these objects are compiled, one file object-DIR%x.o each; what has to be generated
#                               before is made
#   obj=DIR lpbuild-elsewhere=1 GOAL  (with -n) how the objects are compiled that GOAL is linked from, a program of its own
# A file holds one field per line: a letter, a blank, the value.
define lpbuild-newline


endef
lpbuild-file = $(lpbuild-out)/$(1)-$(subst /,%,$(2))

lpbuild-list:

include $(srctree)/scripts/Makefile.build

# Instead of Makefile.build, so that the folders below are asked the same.
build := -f $(lpbuild-self) obj
lpbuild-list: $(subdir-ym)
	@:

ifdef lpbuild-list
$(file >$(call lpbuild-file,dir,$(obj)),d $(obj)$(lpbuild-newline)$\
y $(real-obj-y) $(lib-y)$(lpbuild-newline)$\
e $(extra-y) $(always-y)$(lpbuild-newline)$\
m $(real-obj-m)$(lpbuild-newline)$\
c $(subdir-ccflags-y)$(lpbuild-newline)$\
a $(subdir-asflags-y)$(lpbuild-newline)$\
i $(patsubst $(srctree)/%,%,$(filter $(srctree)/%,$(MAKEFILE_LIST)))$(lpbuild-newline)$\
h $(foreach p,$(hostprogs) $(userprogs),$(p).c $(patsubst %.o,%.c,$($(p)-objs))))
endif

# The kernel that the boot program contains, and libraries that are asked about in their own folders, are taken for made.
ifdef lpbuild-elsewhere
ifneq ($(filter arch/x86/boot arch/x86/boot/%,$(obj)),)
vmlinux drivers/firmware/efi/libstub/lib.a arch/x86/boot/startup/lib.a: ;
endif
endif

# The rules for .c and .S say how instead of doing it.
lpbuild-describe = @$(file >$(call lpbuild-file,object,$@),s $<$(lpbuild-newline)$\
k $(CC)$(lpbuild-newline)$\
f $(1)$(lpbuild-newline)$\
o $(cmd_objtool)$(lpbuild-newline)$\
t $(objtool)$(lpbuild-newline)$\
p $(objtool-args-y)$(lpbuild-newline)$\
l $(delay-objtool)$(lpbuild-newline)$\
x $(part-of-module)$(lpbuild-newline)$\
n $(is-single-obj-m)$(lpbuild-newline)$\
m $(modfile)):

lpbuild-rule-cc_o_c = $(call lpbuild-describe,$(c_flags))
lpbuild-rule-as_o_S = $(call lpbuild-describe,$(a_flags))
if_changed_rule = $(lpbuild-rule-$(strip $(1)))
