//! The settings of TLS: which need which.

use super::error::ConfigError;
use super::layers::Layers;
use super::settings;
use crate::server::tls::{Tls, TlsError, TlsFiles, TlsMode};

/// What a server offers TLS with, where it does.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// Whether a peer that does not start TLS is closed.
    pub is_required: bool,
    /// The files.
    pub files: TlsFiles,
}

impl TlsConfig {
    /// Reads the settings of TLS; `None` where it is off.
    ///
    /// # Errors
    ///
    /// A value is wrong, or a setting lacks one that it needs.
    pub fn lower(layers: &Layers) -> Result<Option<Self>, ConfigError> {
        let mode = layers.get(&settings::TLS)?;
        let [cert, key, client_ca, crl] = [
            layers.get_optional(&settings::TLS_CERT)?,
            layers.get_optional(&settings::TLS_KEY)?,
            layers.get_optional(&settings::TLS_CLIENT_CA)?,
            layers.get_optional(&settings::TLS_CRL)?,
        ];
        if mode == TlsMode::Off {
            let files =
                [("tls_cert", cert), ("tls_key", key), ("tls_client_ca", client_ca), ("tls_crl", crl)];
            // Whoever names a certificate believes that connections are encrypted.
            return match files.into_iter().find(|(_, file)| file.is_some()) {
                Some((name, _)) => Err(relation(format!(
                    "{name} is set, but tls is off: set tls to optional or required, or remove {name}"
                ))),
                None => Ok(None),
            };
        }
        let needed = |name| move || relation(format!("tls is {mode}, but {name} is not set: give the file"));
        let (cert, key) = (cert.ok_or_else(needed("tls_cert"))?, key.ok_or_else(needed("tls_key"))?);
        if crl.is_some() && client_ca.is_none() {
            let problem = "tls_crl is set, but tls_client_ca is not: there is nobody whose certificates it \
                           could revoke";
            return Err(relation(problem.to_owned()));
        }
        let files = TlsFiles { cert, key, client_ca, crl };
        Ok(Some(Self { is_required: mode == TlsMode::Required, files }))
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// The first file that is wrong.
    pub fn load(&self) -> Result<Tls, TlsError> {
        Tls::load(self.is_required, &self.files)
    }

    /// Returns the mode of a configuration, or of none.
    pub fn mode(config: Option<&Self>) -> TlsMode {
        match config {
            None => TlsMode::Off,
            Some(config) if config.is_required => TlsMode::Required,
            Some(_) => TlsMode::Optional,
        }
    }
}

fn relation(problem: String) -> ConfigError {
    ConfigError::Relation(problem)
}
