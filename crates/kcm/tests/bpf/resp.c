/* A RESP command of up to 16 arguments with lengths of up to 5 digits; digits are unrolled, arguments are
 * not: a bounded loop. */
#include "kcm.h"
SEC("socket") int parse(struct __sk_buff *skb)
{
	if (load_byte(skb, 0) != '*')
		return -EPROTO;
	u32 at = 1, count = 0;
	for (int i = 0; i < 3; i++) {
		u32 c = load_byte(skb, at++);
		if (c == '\r')
			break;
		if (c < '0' || c > '9')
			return -EPROTO;
		count = count * 10 + c - '0';
	}
	at++;
	if (count > 16)
		return -90;
	for (u32 i = 0; i < count && i < 16; i++) {
		u32 len = 0;
		if (load_byte(skb, at++) != '$')
			return -EPROTO;
#pragma unroll
		for (int d = 0; d < 6; d++) {
			u32 c = load_byte(skb, at++);
			if (c == '\r')
				break;
			if (c < '0' || c > '9' || d == 5)
				return -EPROTO;
			len = len * 10 + c - '0';
		}
		at += 1 + len + 2;
	}
	return at;
}
