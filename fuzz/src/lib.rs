//! What the fuzz targets share: the properties of `tests/input`, which the tests
//! use too, and a mutator that keeps messages whole.

#[path = "../../tests/input/mod.rs"]
pub mod input;
pub mod mutator;

use sorteo_protocol::wire::WireLimits;

use input::properties;

/// All that the decoder promises of any bytes.
pub fn decoder_keeps_its_promises(bytes: &[u8]) {
    for limits in [WireLimits::default(), properties::TIGHT] {
        let delivered = properties::same_messages_in_any_pieces(limits, bytes);
        properties::decoded_as_the_protocol_says(limits, bytes, &delivered);
        properties::requests_survive_encoding(&delivered);
    }
}

/// All that the service promises of any bytes, in two lotteries.
pub fn service_keeps_its_promises(bytes: &[u8]) {
    for agencies in [None, Some(2)] {
        properties::answered_as_the_model_does(agencies, WireLimits::default(), bytes);
    }
}
