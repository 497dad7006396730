//! Bytes of one connection, in several pieces, through the server's conversation: what
//! it replies.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use sorteo_fuzz::{mutator, conversation_keeps_its_promises};

fuzz_target!(|bytes: &[u8]| conversation_keeps_its_promises(bytes));

fuzz_mutator!(|data: &mut [u8], size: usize, size_max: usize, seed: u32| {
    mutator::mutate(data, size, size_max, seed)
});
