//! The agency that a client's certificate is of.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use sorteo_protocol::AgencyId;
use sorteo_protocol::text::decimal;

/// What the name of everything of ours begins with.
const OURS: &str = "urn:sorteo:";
const AGENCY: &str = "agency:";

/// Returns the agency of a certificate: the number in its one alternative name of the form
/// `urn:sorteo:agency:N`. `None` if it has no name of ours, or several, or the one has another
/// form. Names of others, such as a host's, do not matter; the common name never counts.
pub(super) fn agency_of(certificate: &CertificateDer<'_>) -> Option<AgencyId> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut ours = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(OURS),
        _ => None,
    });
    match (ours.next(), ours.next()) {
        (Some(name), None) => read_agency(name),
        _ => None,
    }
}

/// Reads a number that is written in the one way that it can be.
fn read_agency(name: &str) -> Option<AgencyId> {
    let digits = name.strip_prefix(AGENCY)?;
    let number: u32 = decimal(digits)?;
    (number.to_string() == digits).then_some(AgencyId(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agency_has_one_spelling() {
        assert_eq!(read_agency("agency:0"), Some(AgencyId(0)));
        assert_eq!(read_agency("agency:4294967295"), Some(AgencyId(u32::MAX)));
        for wrong in
            ["agency:", "agency:01", "agency:-1", "agency:4294967296", "agency:1 ", "agency:1:2", "1"]
        {
            assert_eq!(read_agency(wrong), None, "{wrong}");
        }
    }
}
