//! What the fuzz targets share: what the program promises for any bytes, which the
//! tests check too, and a mutator that keeps messages whole.

pub mod mutator;

use sorteo_protocol::wire::WireLimits;
use sorteo_test_support::decoder;

/// Asserts everything that must hold for the decoder and any bytes.
pub fn decoder_keeps_its_promises(bytes: &[u8]) {
    for limits in [WireLimits::default(), decoder::TIGHT] {
        let delivered = decoder::same_messages_in_any_pieces(limits, bytes);
        decoder::decoded_as_the_protocol_says(limits, bytes, &delivered);
        decoder::requests_survive_encoding(&delivered);
    }
}

/// Asserts everything that must hold for a conversation and any bytes, in two lotteries.
#[cfg(feature = "program")]
pub fn conversation_keeps_its_promises(bytes: &[u8]) {
    for agencies in [None, Some(2)] {
        sorteo_test_support::conversation::answered_as_the_model_does(agencies, WireLimits::default(), bytes);
    }
}
