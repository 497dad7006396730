//! The flags by which a command on a server encrypts its connections and proves which
//! agency it is. They name files: a secret is never on a command line. They have no
//! variables, since `SORTEO_TLS` and those like it are the server's.

use std::path::PathBuf;

use crate::config::{AgencyConfig, ConfigError};
use sorteo_agency::{ClientCertificate, Security, Tls, TokenFile};
use sorteo_protocol::AgencyId;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Security")]
pub(super) struct SecurityArgs {
    /// Connect with TLS, and never without
    #[arg(long, requires = "tls_ca")]
    tls: bool,
    /// PEM file of the authorities that may have issued the server's certificate
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, requires = "tls")]
    tls_ca: Option<PathBuf>,
    /// PEM file of the certificate by which the server knows this agency
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, requires_all = ["tls", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// PEM file of that certificate's private key, readable by its owner alone
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, requires_all = ["tls", "tls_cert"])]
    tls_key: Option<PathBuf>,
    /// File of the agency's token, readable by its owner alone; read anew at each connect
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    token_file: Option<PathBuf>,
}

impl SecurityArgs {
    /// Returns what they ask for, with the agency of this configuration.
    ///
    /// # Errors
    ///
    /// There is a token, and the agency that it is of is not given.
    pub(super) fn read(&self, config: &AgencyConfig) -> Result<Security, ConfigError> {
        self.of_agency(config.agency, "--agency or SORTEO_AGENCY")
    }

    /// Returns what they ask for, with this agency, which a person gives in this way.
    ///
    /// # Errors
    ///
    /// As [`SecurityArgs::read`].
    pub(super) fn of_agency(
        &self,
        agency: Option<AgencyId>,
        given_by: &str,
    ) -> Result<Security, ConfigError> {
        let token = match (&self.token_file, agency) {
            (None, _) => None,
            (Some(path), Some(agency)) => Some(TokenFile { agency, path: path.clone() }),
            (Some(_), None) => {
                let problem = format!("needs the agency that the token is of: use {given_by}");
                return Err(ConfigError::Flag { flag: "--token-file".to_owned(), problem });
            }
        };
        Ok(Security { tls: self.tls(), token })
    }

    fn tls(&self) -> Option<Tls> {
        let ca = self.tls_ca.clone().filter(|_| self.tls)?;
        let certificate = match (&self.tls_cert, &self.tls_key) {
            (Some(chain), Some(key)) => Some(ClientCertificate { chain: chain.clone(), key: key.clone() }),
            _ => None,
        };
        Some(Tls { ca, certificate })
    }
}
