//! The Dockerfile and the compose file, as far as no container engine is needed:
//! `tests/outside/container.sh` tests the image itself.

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const COMPOSE: &str = include_str!("../../docker-compose.yaml");

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
