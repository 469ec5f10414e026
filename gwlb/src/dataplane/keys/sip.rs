//! SipHash over words that are at hand: what the crate `siphasher` says of their bytes, without
//! putting these together in memory first, and without a loop.

/// SipHash, with `COMPRESS` rounds for each word and `FINISH` at the end, of some words and of
/// `last`: the bytes that are left over, and in its highest byte how many bytes there are in all.
#[inline]
pub(super) fn hash<const COMPRESS: usize, const FINISH: usize, const WORDS: usize>(
    key: &[u8; 16],
    words: [u64; WORDS],
    last: u64,
) -> u64 {
    let [k0, k1] = [0, 8].map(|at| {
        let bytes = key[at..].first_chunk().copied();
        u64::from_le_bytes(bytes.unwrap_or_default())
    });
    let mut state = State {
        a: k0 ^ 0x736f_6d65_7073_6575,
        b: k1 ^ 0x646f_7261_6e64_6f6d,
        c: k0 ^ 0x6c79_6765_6e65_7261,
        d: k1 ^ 0x7465_6462_7974_6573,
    };
    for word in &words {
        state = state.with::<COMPRESS>(*word);
    }
    state = state.with::<COMPRESS>(last);
    state.c ^= 0xff;
    let State { a, b, c, d } = state.after::<FINISH>();
    a ^ b ^ c ^ d
}

#[derive(Clone, Copy)]
struct State {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
}

impl State {
    #[inline]
    fn with<const ROUNDS: usize>(self, word: u64) -> Self {
        let mixed = Self { d: self.d ^ word, ..self }.after::<ROUNDS>();
        Self { a: mixed.a ^ word, ..mixed }
    }

    #[inline]
    fn after<const ROUNDS: usize>(self) -> Self {
        let Self { mut a, mut b, mut c, mut d } = self;
        for _ in 0..ROUNDS {
            a = a.wrapping_add(b);
            c = c.wrapping_add(d);
            b = b.rotate_left(13) ^ a;
            d = d.rotate_left(16) ^ c;
            a = a.rotate_left(32);
            c = c.wrapping_add(b);
            a = a.wrapping_add(d);
            b = b.rotate_left(17) ^ c;
            d = d.rotate_left(21) ^ a;
            c = c.rotate_left(32);
        }
        Self { a, b, c, d }
    }
}
