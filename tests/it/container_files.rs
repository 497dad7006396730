//! The Dockerfile and the compose file, as far as no container engine is needed:
//! `tests/outside/container.sh` tests the image itself.

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const COMPOSE: &str = include_str!("../../docker-compose.yaml");
const SECURED: &str = include_str!("../../docker-compose.secured.yaml");

#[test]
fn every_base_image_is_pinned_by_its_digest() {
    let after = |start: &'static str| DOCKERFILE.lines().filter_map(move |line| line.strip_prefix(start));
    let images: Vec<(&str, &str)> = after("ARG ").filter_map(|line| line.split_once("_IMAGE=")).collect();
    for (name, image) in &images {
        let (_, digest) = image.split_once("@sha256:").unwrap_or_else(|| panic!("{name}: {image}"));
        assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{image}");
    }
    let from: Vec<&str> = after("FROM ").map(|line| line.split(' ').next().unwrap()).collect();
    let expected: Vec<String> = images.iter().map(|(name, _)| format!("${{{name}_IMAGE}}")).collect();
    assert_eq!(from, expected);
}

#[test]
fn no_variable_of_the_image_stands_above_those_that_set_the_port() {
    // SORTEO_LISTEN overrides SERVER_PORT, and a health check with an address of its own
    // would ask elsewhere.
    let mut lines = DOCKERFILE.lines().filter(|line| !line.starts_with('#'));
    assert!(!lines.any(|line| line.contains("SORTEO_LISTEN=")), "it hides SERVER_PORT");
    assert!(DOCKERFILE.contains(r#"CMD ["/usr/local/bin/sorteo", "status"]"#));
}

#[test]
fn no_container_leaves_a_core_dump() {
    // Each block of limits, to the next empty line: that of the server, and the others'.
    let limits: Vec<&str> = COMPOSE.split("mem_limit: ").skip(1).collect();
    assert_eq!(limits.len(), 2);
    for block in limits {
        let block = block.split("\n\n").next().unwrap();
        assert!(block.contains("core: 0"), "{block}");
    }
}

/// The services of a compose file, each with its lines.
fn services(compose: &str) -> Vec<(&str, &str)> {
    let (_, services) = compose.split_once("\nservices:\n").unwrap();
    let (services, _) = services.split_once("\nvolumes:\n").unwrap();
    let mut found: Vec<(&str, &str)> = Vec::new();
    let starts: Vec<usize> = services
        .match_indices("  ")
        .map(|(at, _)| at)
        .filter(|at| {
            (*at == 0 || services.as_bytes()[at - 1] == b'\n')
                && services.as_bytes()[at + 2].is_ascii_lowercase()
        })
        .collect();
    for (index, start) in starts.iter().enumerate() {
        let service = &services[*start..starts.get(index + 1).copied().unwrap_or(services.len())];
        let (name, lines) = service.split_once(":\n").unwrap();
        found.push((name.trim(), lines));
    }
    found
}

#[test]
fn the_secured_file_secures_every_service_that_connects() {
    let secured = services(SECURED);
    let lines = |name: &str| secured.iter().find(|(service, _)| *service == name).expect(name).1;
    for (agency, _) in services(COMPOSE).iter().filter(|(name, _)| name.starts_with("agency-")) {
        let token = format!("\"--tls\", \"--tls-ca=/ca.pem\", \"--token-file=/tokens/{agency}.token\"");
        assert!(lines(agency).contains(&token), "{agency}: {}", lines(agency));
        assert!(lines(agency).contains("<<: *agency\n"), "{agency} waits for its token");
    }
    let server = lines("server");
    for set in ["SORTEO_AUTH: required", "SORTEO_TLS: required", "SORTEO_OPS_AUTH: token"] {
        assert!(server.contains(set), "{set}");
    }
    // The health check's agency takes no part in the draw, whoever gets its token.
    assert!(server.contains("- --agency=0\n") && server.contains("agency-0.token"));
    assert!(server.contains("SORTEO_AGENCIES: 1-5\n"));
    for hardened in ["read_only: true", "cap_drop:", "no-new-privileges:true"] {
        assert!(SECURED.contains(hardened), "{hardened}");
    }
    assert!(lines("tokens").contains("<<: *hardening") && lines("tokens").contains("core: 0"));
}
