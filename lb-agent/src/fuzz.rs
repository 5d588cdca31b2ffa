//! What the fuzz tests share: how much, and how a sound text becomes an unsound one.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Strategy as Generator;

/// Cases of each test: `LB_FUZZ_CASES`, or as many as take seconds.
pub fn cases() -> usize {
    std::env::var("LB_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

/// What is put into a text, among other bytes.
const PIECES: [&[u8]; 16] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"=",
    b",",
    b"\n",
    b"\0",
    b"-1",
    b"99999999999999999999",
    b"\xff",
    b"null",
    b"10.0.0.1:80",
    b"'''",
];

/// One of some texts, cut into and pasted over in up to six places.
pub fn mutated(texts: &'static [&'static str]) -> impl Generator<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => select(&PIECES[..]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..4),
    ];
    let edit = (any::<prop::sample::Index>(), 0..12_usize, piece);
    (select(texts), vec(edit, 1..6)).prop_map(|(text, edits)| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, length, piece) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, piece);
        }
        bytes
    })
}
