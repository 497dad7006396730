//! Bytes of the framed dialect: what the decoder makes of them.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use sorteo_fuzz::{decoder_keeps_its_promises, mutator};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if bytes.first() != Some(&0) {
        return Corpus::Reject;
    }
    decoder_keeps_its_promises(bytes);
    Corpus::Keep
});

fuzz_mutator!(|data: &mut [u8], size: usize, size_max: usize, seed: u32| {
    mutator::mutate(data, size, size_max, seed)
});
