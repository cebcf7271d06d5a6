//! A generator of a large file.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// Writes a CSV file of accounts, of about this many bytes, and returns the number of accounts. The content is always the same.
pub(crate) fn accounts(path: &Path, bytes: u64) -> io::Result<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut row = String::from("Name,Industry,Website\n");
    let (mut written, mut accounts) = (0, 0);
    loop {
        file.write_all(row.as_bytes())?;
        written += row.len() as u64;
        if written >= bytes {
            break;
        }
        accounts += 1;
        row = format!("\"Account, No. {accounts}\",Energy,https://{accounts}.example.com\n");
    }
    file.into_inner()?.sync_all()?;
    Ok(accounts)
}
