//! The machine that a pickle is a program of, without what would call anything.

use super::{Global, Id, MEND, Value};
use crate::data::format::reserve;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Reads opcode by opcode.
pub struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the current opcode stands.
    start: usize,
    stack: Vec<Id>,
    memo: HashMap<u32, Id>,
    pub values: Vec<Value>,
    path: &'a Path,
}

impl<'a> Machine<'a> {
    /// Before the first opcode.
    pub fn new(bytes: &'a [u8], path: &'a Path) -> Self {
        Self { bytes, at: 0, start: 0, stack: Vec::new(), memo: HashMap::new(), values: Vec::new(), path }
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::data(format!("{}, byte {}", self.path.display(), self.start), what, MEND)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count));
        let taken = taken.ok_or_else(|| self.error(format!("the pickle ends within {count} bytes")))?;
        self.at += count;
        Ok(taken)
    }

    /// A number of `N` bytes, little-endian.
    fn number<const N: usize>(&mut self) -> Result<u64> {
        Ok(self.take(N)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// As many bytes as a number of `N` bytes says.
    fn counted<const N: usize>(&mut self) -> Result<&'a [u8]> {
        let count = self.number::<N>()?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Text to the end of the line.
    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(1 << 10).position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| self.error("a line without end"))?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| self.error("a name that is no text"))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        reserve(&mut self.values, 1, self.path)?;
        reserve(&mut self.stack, 1, self.path)?;
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        self.stack.pop().ok_or_else(|| self.error("it takes a value that is not there"))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| self.error("it takes a value that is not there"))
    }

    /// What stands above the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.stack.iter().rposition(|&id| matches!(self.values[id], Value::Mark));
        let mark = mark.ok_or_else(|| self.error("it goes back to a mark that is not there"))?;
        let above = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(above)
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        let start =
            self.stack.len().checked_sub(count).ok_or_else(|| self.error("a tuple of values that are not there"))?;
        let items = self.stack.split_off(start);
        self.push(Value::Tuple(items))
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        let path = self.path;
        match &mut self.values[list] {
            Value::List(list) => {
                reserve(list, items.len(), path)?;
                list.extend(items);
                Ok(())
            }
            _ => Err(self.error("it appends to what is no list")),
        }
    }

    fn set(&mut self, items: Vec<Id>) -> Result<()> {
        let dict = self.top()?;
        let path = self.path;
        match &mut self.values[dict] {
            Value::Dict(dict) if items.len().is_multiple_of(2) => {
                reserve(dict, items.len() / 2, path)?;
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err(self.error("it sets keys of what is no dictionary")),
        }
    }

    fn text(&mut self, bytes: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|_| self.error("a text that is not UTF-8"))?;
        self.push(Value::Text(text.to_owned()))
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let known = match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Global::Reconstruct,
            ("numpy", "ndarray") => Global::Ndarray,
            ("numpy", "dtype") => Global::Dtype,
            ("_codecs", "encode") => Global::Encode,
            _ => return Err(self.error(format!("opcode GLOBAL names {module}.{name}, which is code"))),
        };
        self.push(Value::Global(known))
    }

    fn remember(&mut self, key: u64) -> Result<()> {
        let top = self.top()?;
        let key = u32::try_from(key).map_err(|_| self.error("a memo out of range"))?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        let found = u32::try_from(key).ok().and_then(|key| self.memo.get(&key));
        let id = *found.ok_or_else(|| self.error("it recalls what was not remembered"))?;
        reserve(&mut self.stack, 1, self.path)?;
        self.stack.push(id);
        Ok(())
    }

    /// Reads to the end: the value that the pickle is.
    pub fn run(&mut self) -> Result<Id> {
        loop {
            self.start = self.at;
            let opcode = self.take(1)?[0];
            match opcode {
                0x80 => {
                    let protocol = self.number::<1>()?;
                    if protocol > 4 {
                        return Err(
                            self.error(format!("opcode PROTO names protocol {protocol}, and 4 is the last known"))
                        );
                    }
                }
                0x95 => drop(self.take(8)?), // FRAME
                b'.' => {
                    let root = self.pop()?;
                    return Ok(root);
                }
                b'(' => self.push(Value::Mark)?,
                b'0' => drop(self.pop()?),
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Integer(1))?,
                0x89 => self.push(Value::Integer(0))?,
                b'K' => {
                    let value = self.number::<1>()?;
                    self.push(Value::Integer(value as i64))?;
                }
                b'M' => {
                    let value = self.number::<2>()?;
                    self.push(Value::Integer(value as i64))?;
                }
                b'J' => {
                    let value = self.number::<4>()? as u32 as i32;
                    self.push(Value::Integer(i64::from(value)))?;
                }
                0x8a => {
                    let bytes = self.counted::<1>()?;
                    if bytes.len() > 8 {
                        return Err(self.error("an integer of more than 64 bits"));
                    }
                    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
                    let start = if negative { -1 } else { 0 };
                    let value = bytes.iter().rev().fold(start, |value: i64, &byte| value << 8 | i64::from(byte));
                    self.push(Value::Integer(value))?;
                }
                b'I' => {
                    let line = self.line()?;
                    let value = line.trim().parse().map_err(|_| self.error("an integer that is none"))?;
                    self.push(Value::Integer(value))?;
                }
                b'U' | b'C' => {
                    let bytes = self.counted::<1>()?.to_vec();
                    self.push(Value::Bytes(bytes))?;
                }
                b'T' | b'B' => {
                    let bytes = self.counted::<4>()?.to_vec();
                    self.push(Value::Bytes(bytes))?;
                }
                0x8e => {
                    let bytes = self.counted::<8>()?.to_vec();
                    self.push(Value::Bytes(bytes))?;
                }
                0x8c => {
                    let bytes = self.counted::<1>()?;
                    self.text(bytes)?;
                }
                b'X' => {
                    let bytes = self.counted::<4>()?;
                    self.text(bytes)?;
                }
                0x8d => {
                    let bytes = self.counted::<8>()?;
                    self.text(bytes)?;
                }
                b']' => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b')' => self.push(Value::Tuple(Vec::new()))?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::List(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.extend(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set(items)?;
                }
                b'q' => {
                    let key = self.number::<1>()?;
                    self.remember(key)?;
                }
                b'r' => {
                    let key = self.number::<4>()?;
                    self.remember(key)?;
                }
                0x94 => self.remember(self.memo.len() as u64)?,
                b'h' => {
                    let key = self.number::<1>()?;
                    self.recall(key)?;
                }
                b'j' => {
                    let key = self.number::<4>()?;
                    self.recall(key)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(name), Value::Text(module)) = (&self.values[name], &self.values[module]) else {
                        return Err(self.error("opcode STACK_GLOBAL names no texts"));
                    };
                    let (module, name) = (module.clone(), name.clone());
                    self.global(&module, &name)?;
                }
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                other => {
                    let name =
                        code_opcode(other).map_or(format!("{other:#04x}"), |name| format!("{name} ({other:#04x})"));
                    return Err(self.error(format!("opcode {name} is none that data need")));
                }
            }
        }
    }

    /// `callable(*arguments)`, for the callables that are known as data.
    fn reduce(&mut self) -> Result<()> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let unknown = "opcode REDUCE calls what is no part of a numpy array";
        let (Value::Global(callable), Value::Tuple(arguments)) = (&self.values[callable], &self.values[arguments])
        else {
            return Err(self.error(unknown));
        };
        let arguments: Vec<&Value> = arguments.iter().map(|&id| &self.values[id]).collect();
        let value = match (callable, &arguments[..]) {
            (Global::Reconstruct, [Value::Global(Global::Ndarray), ..]) => Value::None,
            (Global::Dtype, [Value::Text(kind), ..]) => Value::Dtype(kind.clone(), false),
            (Global::Dtype, [Value::Bytes(kind), ..]) => {
                Value::Dtype(String::from_utf8_lossy(kind).into_owned(), false)
            }
            (Global::Encode, [Value::Text(text), ..]) => {
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
                Value::Bytes(bytes.ok_or_else(|| self.error("bytes that are not Latin-1"))?)
            }
            _ => return Err(self.error(unknown)),
        };
        self.push(value)
    }

    /// The state of a type or an array.
    fn build(&mut self) -> Result<()> {
        let (state, built) = (self.pop()?, self.top()?);
        let Value::Tuple(state) = &self.values[state] else {
            return Err(self.error("opcode BUILD without the state of a numpy array"));
        };
        let of = |i: usize| state.get(i).map(|&id| (id, &self.values[id]));
        let value = match (&self.values[built], &state[..]) {
            (Value::Dtype(kind, _), [_, order, ..]) => {
                let order = match &self.values[*order] {
                    Value::Text(order) => order.as_bytes(),
                    Value::Bytes(order) => order,
                    _ => b"",
                };
                Value::Dtype(kind.clone(), order == b">")
            }
            (Value::None, [_, _, _, _, _]) => {
                let (
                    Some((_, Value::Tuple(shape))),
                    Some((dtype, _)),
                    Some((_, Value::Integer(fortran))),
                    Some((data, _)),
                ) = (of(1), of(2), of(3), of(4))
                else {
                    return Err(self.error("opcode BUILD with a state that is none of a numpy array"));
                };
                let dim = |&id: &Id| match self.values[id] {
                    Value::Integer(dim) => usize::try_from(dim).ok(),
                    _ => None,
                };
                let shape: Option<Vec<usize>> = shape.iter().map(dim).collect();
                let shape = shape.ok_or_else(|| self.error("an array of no shape"))?;
                Value::Array { shape, dtype, fortran: *fortran != 0, data }
            }
            _ => return Err(self.error("opcode BUILD of what is no numpy array")),
        };
        self.values[built] = value;
        Ok(())
    }
}

/// Names of the opcodes that build other things than data, for a clear word on them.
fn code_opcode(opcode: u8) -> Option<&'static str> {
    Some(match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        0x82..=0x84 => "EXT",
        0x97 => "NEXT_BUFFER",
        b'G' => "BINFLOAT",
        b'F' => "FLOAT",
        0x8f => "EMPTY_SET",
        _ => return None,
    })
}
