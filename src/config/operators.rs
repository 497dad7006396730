//! The settings of the operators' HTTP: where it is served, and who may read what.

use std::path::PathBuf;

use crate::server::listen::Endpoint;

/// Who may use the operators' HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpsAuth {
    /// Whoever reaches it.
    Off,
    /// Whoever has an operator's token.
    Token,
}

/// What the operators' HTTP runs with.
#[derive(Clone, Debug)]
pub struct OpsConfig {
    /// Where it listens, if it does.
    pub listen: Option<Vec<Endpoint>>,
    /// Who may use it, if that is set: [`auth`](Self::auth) returns what holds.
    pub auth_setting: Option<OpsAuth>,
    /// Names by which it may be asked, in lower case, beside `localhost` and addresses.
    pub hosts: Vec<String>,
    /// The Unix socket on which it is served too, if it is.
    pub socket: Option<PathBuf>,
}

impl OpsConfig {
    /// Returns whether there is such an HTTP at all.
    pub fn is_served(&self) -> bool {
        self.listen.is_some() || self.socket.is_some()
    }

    /// Returns who may use it. Where that is not set, it is open on loopback alone.
    pub fn auth(&self) -> OpsAuth {
        let open_on = |endpoints: &[Endpoint]| endpoints.iter().all(Endpoint::is_loopback);
        self.auth_setting.unwrap_or(match self.listen.as_deref().is_none_or(open_on) {
            true => OpsAuth::Off,
            false => OpsAuth::Token,
        })
    }

    /// Returns what is open to everybody on a network, a line for each: the setting and its
    /// value, then what follows from it.
    pub fn open_doors(&self) -> Vec<String> {
        let reachable = self.listen.iter().flatten().flat_map(Endpoint::beyond_loopback);
        let reachable: Vec<String> = reachable.map(|address| address.to_string()).collect();
        if self.auth() == OpsAuth::Token || reachable.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "ops_auth=off: whoever reaches {} sees everything, names and documents of winners too",
            reachable.join(", ")
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &[&str], auth_setting: Option<OpsAuth>) -> OpsConfig {
        let endpoint = |text: &&str| Endpoint::new([text.parse().unwrap()]).unwrap();
        let listen = (!listen.is_empty()).then(|| listen.iter().map(endpoint).collect());
        OpsConfig { listen, auth_setting, hosts: Vec::new(), socket: None }
    }

    #[test]
    fn a_token_is_needed_wherever_another_machine_can_ask() {
        for (listen, auth) in [
            (&[][..], OpsAuth::Off),
            (&["127.0.0.1:1", "[::1]:1", "127.9.9.9:1", "[::ffff:127.0.0.1]:1"], OpsAuth::Off),
            (&["127.0.0.1:1", "10.0.0.1:1"], OpsAuth::Token),
            (&["0.0.0.0:1"], OpsAuth::Token),
            (&["[::]:1"], OpsAuth::Token),
        ] {
            assert_eq!(config(listen, None).auth(), auth, "{listen:?}");
            assert_eq!(config(listen, None).open_doors(), [""; 0], "{listen:?}");
            assert_eq!(config(listen, Some(OpsAuth::Token)).auth(), OpsAuth::Token);
        }
    }

    #[test]
    fn an_open_door_is_named_with_the_addresses_that_others_reach() {
        let open = |listen: &[&str]| config(listen, Some(OpsAuth::Off)).open_doors();
        assert_eq!(open(&["127.0.0.1:1"]), [""; 0]);
        assert_eq!(
            open(&["127.0.0.1:1", "10.0.0.1:1", "[::]:2"]),
            ["ops_auth=off: whoever reaches 10.0.0.1:1, [::]:2 sees everything, names and documents of \
              winners too"]
        );
    }
}
