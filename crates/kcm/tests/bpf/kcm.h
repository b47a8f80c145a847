/* What a delineation program for KCM needs, without headers of the kernel. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority,
		ingress_ifindex, ifindex, tc_index, cb[5], hash;
};

u64 load_byte(void *skb, u64 off) __asm__("llvm.bpf.load.byte");
u64 load_half(void *skb, u64 off) __asm__("llvm.bpf.load.half");
u64 load_word(void *skb, u64 off) __asm__("llvm.bpf.load.word");
static long (*bpf_skb_load_bytes)(const void *skb, u32 off, void *to, u32 len) = (void *)26;

#define SEC(name) __attribute__((section(name), used))
#define EPROTO 71
char _license[] SEC("license") = "MIT";
