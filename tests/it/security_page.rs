//! SECURITY.md: every test that it names is there.

use std::fs;
use std::path::Path;

#[test]
fn every_attack_names_a_test_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (_, attacks) = page.split_once("## Attacks").unwrap();
    let (attacks, _) = attacks.split_once("\n## ").unwrap();
    let mut named = 0;
    for row in attacks.lines().filter(|line| line.starts_with('|')).skip(2) {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let mut file = String::new();
        // What is in backticks: a path, then the names of tests in that file.
        for word in tests.split('`').skip(1).step_by(2) {
            if word.contains('/') {
                let path = root.join(word);
                file = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{word}: {error}"));
            } else {
                assert!(
                    file.contains(&format!("#[test]\nfn {word}()"))
                        || file.contains(&format!("    #[test]\n    fn {word}()")),
                    "there is no test {word}: {row}"
                );
            }
            named += 1;
        }
        assert!(!file.is_empty(), "no test is named: {row}");
    }
    assert!(named > 30, "only {named} are named");
}
