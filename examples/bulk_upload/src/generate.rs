//! A large file to try with.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// Writes a CSV file of accounts, of about so many bytes, and says how many there are. It is the same one every time.
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
