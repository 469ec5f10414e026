//! `router import`: a configuration of what a cloud says.

use std::io::{self, Read, Write};
use std::path::Path;

use super::{ImportArgs, Status};
use crate::import;
use crate::source::{Look, Problem, Problems, Source};

pub(super) fn run(
    args: &ImportArgs,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Status> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for file in &args.files {
        match read(file) {
            Ok(document) => documents.push(document),
            Err(unread) => problems.push(unread),
        }
    }
    let imported = if problems.is_empty() { import::import(&documents) } else { Err(problems) };
    let imported = match imported {
        Ok(imported) => imported,
        Err(problems) => {
            let reports: Vec<String> =
                problems.iter().map(|problems| problems.render(Look::of_stderr())).collect();
            err.write_all(reports.join("\n").as_bytes())?;
            return Ok(Status::Usage);
        }
    };
    for note in &imported.notes {
        writeln!(err, "note: {note}")?;
    }
    out.write_all(imported.toml.as_bytes())?;
    Ok(Status::Done)
}

fn read(file: &Path) -> Result<Source, Problems> {
    if file != Path::new("-") {
        return Source::read(file);
    }
    let name = "standard input";
    let mut bytes = Vec::new();
    match io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => Source::from_bytes(name, bytes),
        Err(error) => {
            let problem = Problem::new(format!("cannot read {name}: {error}"));
            Err(Problems::from((Source::new(name, ""), problem)))
        }
    }
}
