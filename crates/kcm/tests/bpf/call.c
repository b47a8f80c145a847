/* A function of its own, a table of constants and a map: what relocations are for. */
#include "kcm.h"
struct map_def { u32 type, key_size, value_size, max_entries, map_flags; };
struct map_def SEC("maps") extra = { 2, 4, 4, 2, 0 };
static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static const volatile u32 sizes[4] = { 8, 16, 24, 32 };

static __attribute__((noinline)) u32 pick(u32 kind)
{
	return sizes[kind & 3];
}

SEC("socket") int parse(struct __sk_buff *skb)
{
	u32 kind = load_byte(skb, 0), key = 0;
	u32 *more = map_lookup(&extra, &key);
	if (!more)
		return -EPROTO;
	return pick(kind) + *more;
}
