//! The tables read: cases with their steps, rows multiplied out.

use crate::manage::Side;

/// One case.
pub(crate) struct Case {
    /// The file's name without its ending, and the case's.
    pub(crate) name: String,
    pub(crate) file: String,
    /// Which line of the contract it proves.
    pub(crate) row: String,
    /// The one broker that it is for, and why.
    pub(crate) only: Option<(Side, String)>,
    pub(crate) steps: Vec<Step>,
}

/// One line of a case.
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) text: String,
    /// The one broker that it is for.
    pub(crate) only: Option<Side>,
}

/// All cases of a file.
pub(crate) fn cases(file: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    let mut block: Vec<(usize, &str)> = Vec::new();
    let mut started = false;
    for (at, line) in text.lines().enumerate() {
        if line.starts_with("== ") {
            if started {
                cases.extend(expand(file, &block)?);
            }
            started = true;
            block.clear();
        }
        if started && !line.trim().is_empty() && !line.starts_with("# ") {
            block.push((at + 1, line.trim()));
        }
    }
    if started {
        cases.extend(expand(file, &block)?);
    }
    Ok(cases)
}

/// A block's case, or one for each of its rows.
fn expand(file: &str, block: &[(usize, &str)]) -> Result<Vec<Case>, String> {
    let [(line, title), (_, row), rest @ ..] = block else {
        return Err(format!("{file}: a case without a row of the contract"));
    };
    let error = |line: usize, what: &str| Err(format!("{file}:{line}: {what}"));
    if !row.starts_with('A') {
        return error(*line, "the line after a case's name tells the row of the contract");
    }
    let title = title.trim_start_matches("== ");
    let (mut columns, mut rows, mut only, mut steps) = (Vec::new(), Vec::new(), None, Vec::new());
    for &(line, text) in rest {
        if let Some(names) = text.strip_prefix("each ") {
            columns = names.split(' ').filter(|name| !name.is_empty()).collect();
        } else if let Some(cells) = text.strip_prefix('|') {
            let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
            if cells.len() != columns.len() {
                return error(line, "a row has as many cells as there are columns");
            }
            rows.push(cells);
        } else if let Some(why) = text.strip_prefix("only warren: ") {
            only = Some((Side::Warren, why.to_owned()));
        } else if let Some(why) = text.strip_prefix("only rabbitmq: ") {
            only = Some((Side::RabbitMq, why.to_owned()));
        } else if let Some(text) = text.strip_prefix("on rabbitmq: ") {
            steps.push((line, text, Some(Side::RabbitMq)));
        } else if let Some(text) = text.strip_prefix("on warren: ") {
            steps.push((line, text, Some(Side::Warren)));
        } else {
            steps.push((line, text, None));
        }
    }
    if rows.is_empty() {
        rows.push(Vec::new());
    }
    let area = file.trim_end_matches(".txt");
    let case = |cells: &Vec<&str>| {
        let fill = |text: &str| {
            columns.iter().zip(cells).fold(text.to_owned(), |text, (column, cell)| {
                text.replace(&format!("<{column}>"), cell)
            })
        };
        let shown =
            if cells.is_empty() { String::new() } else { format!(" [{}]", cells.join(", ")) };
        Case {
            name: format!("{area}: {title}{shown}"),
            file: file.to_owned(),
            row: (*row).to_owned(),
            only: only.clone(),
            steps: steps
                .iter()
                .map(|&(line, text, only)| Step { line, text: fill(text), only })
                .collect(),
        }
    };
    Ok(rows.iter().map(case).collect())
}
