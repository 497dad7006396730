//! Uploads a file of bets as one agency, waits for the draw, prints the winning documents.
//!
//! `cargo run --example upload -- 127.0.0.1:12345 1 agency-1.csv`

use std::path::PathBuf;
use std::time::Duration;

use sorteo_agency::{ClientOptions, Event, Observer, Upload};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, agency, file] = &arguments[..] else {
        return Err("usage: upload HOST:PORT AGENCY FILE".into());
    };
    let file = PathBuf::from(file);
    let mut options = ClientOptions::new(server.as_str(), Duration::from_secs(60));
    options.observer = Observer::new(|event| {
        if let Event::Retrying { error } = event {
            eprintln!("{error}: trying again");
        }
    });
    let mut upload = Upload::start(options, agency.parse()?, &file)?;
    upload.send(&file, 99)?;
    upload.done()?;
    for document in upload.wait_winners()? {
        println!("{document}");
    }
    Ok(())
}
