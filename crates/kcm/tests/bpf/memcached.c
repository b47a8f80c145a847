/* memcached's binary protocol; the opaque goes out as the key. */
#include "kcm.h"
SEC("socket") int parse(struct __sk_buff *skb)
{
	if (skb->len < 24)
		return 0;
	u32 magic = load_byte(skb, 0);
	if (magic != 0x80 && magic != 0x81)
		return -EPROTO;
	u32 body = load_word(skb, 8);
	if (load_half(skb, 2) + load_byte(skb, 4) > body)
		return -EPROTO;
	if (body > 0x10000000)
		return -90;
	skb->cb[0] = load_word(skb, 12);
	skb->cb[3] = 24;
	return body + 24;
}
