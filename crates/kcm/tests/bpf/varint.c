/* A length as protobuf's varint. */
#include "kcm.h"
SEC("socket") int parse(struct __sk_buff *skb)
{
	u64 value = 0;
#pragma unroll
	for (int i = 0; i < 5; i++) {
		u64 b = load_byte(skb, i);
		value |= (b & 0x7f) << (7 * i);
		if (!(b & 0x80))
			return value > 0x7ffffff0 ? -90 : value + i + 1;
	}
	return -EPROTO;
}
