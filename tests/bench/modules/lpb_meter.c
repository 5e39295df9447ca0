// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a call of int_sqrt(1) costs, loop included, in thousandths of a tick of the TSC; under QEMU's -icount a tick is an
 * instruction. The fixed part is taken out by the difference between two loops.
 *
 *   /sys/module/lpb_meter/parameters/per_call   now
 *   /sys/module/lpb_meter/parameters/watch      the costs as they change within three seconds, for one task that does not
 *                                               leave the kernel in between and is never in a wait for long
 */
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/jiffies.h>
#include <linux/math.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sysfs.h>
#include <asm/msr.h>

#define CALLS 1000
#define WATCH_SECONDS 3

static noinline u64 loop(unsigned int n)
{
	u64 start = rdtsc_ordered();

	while (n--)
		int_sqrt(1);
	return rdtsc_ordered() - start;
}

static u64 cost(void)
{
	unsigned long flags;
	u64 less, more;

	local_irq_save(flags);
	less = loop(CALLS);
	more = loop(2 * CALLS);
	local_irq_restore(flags);
	return (more - less) * 1000 / CALLS;
}

static int show(char *buffer, int at, u64 cost)
{
	return sysfs_emit_at(buffer, at, "%llu.%03llu\n", cost / 1000, cost % 1000);
}

static int per_call_get(char *buffer, const struct kernel_param *kp)
{
	return show(buffer, 0, cost());
}

static int watch_get(char *buffer, const struct kernel_param *kp)
{
	unsigned long end = jiffies + WATCH_SECONDS * HZ;
	u64 now, last = 0;
	int at = 0;

	while (time_before(jiffies, end)) {
		now = cost();
		if (now != last)
			at += show(buffer, at, now);
		last = now;
		usleep_range(1000, 2000);
	}
	return at;
}

static const struct kernel_param_ops per_call_ops = { .get = per_call_get };
static const struct kernel_param_ops watch_ops = { .get = watch_get };

module_param_cb(per_call, &per_call_ops, NULL, 0444);
module_param_cb(watch, &watch_ops, NULL, 0444);
MODULE_DESCRIPTION("What a call costs");
MODULE_LICENSE("GPL");
