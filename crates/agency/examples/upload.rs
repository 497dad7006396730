//! Uploads a file of bets as one agency, waits for the draw, prints the winning documents.
//!
//! `cargo run --example upload -- 127.0.0.1:12345 1 agency-1.csv`

use std::{error::Error, path::Path, time::Duration};

use sorteo_agency::{BATCH_BETS, ClientOptions, Event, Observer, Upload};

fn main() {
    if let Err(error) = run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [server, agency, file] = arguments else { return Err("usage: upload HOST:PORT AGENCY FILE".into()) };
    let mut options = ClientOptions::new(server.as_str(), Duration::from_secs(60));
    options.observer = Observer::new(|event| {
        if let Event::Retrying { error } = event {
            eprintln!("{error}: trying again");
        }
    });
    let mut upload = Upload::start(options, agency.parse()?, Path::new(file))?;
    upload.send(Path::new(file), BATCH_BETS)?;
    upload.done()?;
    upload.wait_winners()?.iter().for_each(|document| println!("{document}"));
    Ok(())
}
