/* HTTP/2 frames of a client: the preface, then nine bytes of header. */
#include "kcm.h"
SEC("socket/http2") int parse(struct __sk_buff *skb)
{
	u8 head[24] = {};
	if (skb->len < 9)
		return 0;
	if (load_word(skb, 0) == 0x50524920) {
		if (skb->len < 24)
			return 0;
		if (bpf_skb_load_bytes(skb, 0, head, 24) < 0)
			return 0;
		return head[18] == 'S' && head[19] == 'M' ? 24 : -EPROTO;
	}
	if (bpf_skb_load_bytes(skb, 0, head, 9) < 0)
		return 0;
	u32 len = head[0] << 16 | head[1] << 8 | head[2];
	return len > 16384 ? -90 : len + 9;
}
