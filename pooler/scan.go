package pooler

import (
	"bytes"
	"fmt"
	"strings"
)

// This file reads configuration files exactly as PgBouncer does (lib/usual/cfparser.c and src/loader.c), so that
// what is found here is what the pooler will see, and positions allow changing a value and nothing else.

type itemKind int

const (
	section itemKind = iota
	pair
	include
	comment
)

// item is one piece of a configuration file. start and end are offsets in the source.
type item struct {
	kind       itemKind
	line       int    // from 1
	section    string // the section that it belongs to; for a section, its name
	key        string // of a pair
	start, end int    // a pair's or an include's value, a comment, a section's header up to and with ']'
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isKeyChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-*", c) >= 0
}

// scan splits a file into items. Errors name the line and never its content, which may be a password.
func scan(src []byte) ([]item, error) {
	if i := bytes.IndexByte(src, 0); i >= 0 {
		return nil, fmt.Errorf("line %d: a NUL byte, where PgBouncer stops reading", lineOf(src, i))
	}
	var items []item
	current := ""
	lineEnd := func(p int) int {
		if i := bytes.IndexByte(src[p:], '\n'); i >= 0 {
			return p + i
		}
		return len(src)
	}
	trimmed := func(start, end int) int {
		for end > start && isSpace(src[end-1]) {
			end--
		}
		return end
	}
	line, counted := 1, 0
	for p := 0; ; {
		for p < len(src) && isSpace(src[p]) {
			p++
		}
		if p == len(src) {
			return items, nil
		}
		line += bytes.Count(src[counted:p], []byte{'\n'})
		counted = p
		it := item{line: line, section: current}
		switch c := src[p]; {
		case bytes.HasPrefix(src[p:], []byte("%include")) && p+8 < len(src) && isBlank(src[p+8]):
			for p += 8; p < len(src) && isBlank(src[p]); p++ {
			}
			end := lineEnd(p)
			it.kind, it.start, it.end = include, p, trimmed(p, end)
			p = end
		case c == '#' || c == ';':
			end := lineEnd(p)
			it.kind, it.start, it.end = comment, p, trimmed(p, end)
			p = end
		case c == '[':
			close := bytes.IndexByte(src[p:lineEnd(p)], ']')
			if close < 0 {
				return nil, fmt.Errorf("line %d: a section without ']'", line)
			}
			current = string(src[p+1 : p+close])
			it.kind, it.section, it.start, it.end = section, current, p, p+close+1
			p += close + 1
		default:
			key, next, ok := scanKey(src, p)
			if !ok {
				return nil, fmt.Errorf("line %d: not \"name = value\"", line)
			}
			end := lineEnd(next)
			it.kind, it.key, it.start, it.end = pair, key, next, trimmed(next, end)
			p = end
		}
		items = append(items, it)
	}
}

// scanKey reads "key =" and the blanks after it; next is where the value starts. Names in single quotes are 1.25's.
func scanKey(src []byte, p int) (key string, next int, ok bool) {
	start := p
	if src[p] == '\'' {
		end := bytes.IndexAny(src[p+1:], "'\n")
		if end < 0 || src[p+1+end] != '\'' {
			return "", 0, false
		}
		key, p = string(src[p+1:p+1+end]), p+end+2
	} else {
		for p < len(src) && isKeyChar(src[p]) {
			p++
		}
		key = string(src[start:p])
	}
	for p < len(src) && isBlank(src[p]) {
		p++
	}
	if key == "" || p == len(src) || src[p] != '=' {
		return "", 0, false
	}
	for p++; p < len(src) && isBlank(src[p]); p++ {
	}
	return key, p, true
}

func lineOf(src []byte, offset int) int { return 1 + bytes.Count(src[:offset], []byte{'\n'}) }

// param is one key=value of an entry in [databases], [users] or [peers]. start and end are the value's offsets in
// the text of the entry, with its quotes.
type param struct {
	key, value string
	start, end int
}

// scanParams splits an entry. Only the blank separates; a tab is part of a key or value. Errors never hold a value.
func scanParams(text string) ([]param, error) {
	skip := func(p int) int {
		for p < len(text) && text[p] == ' ' {
			p++
		}
		return p
	}
	var params []param
	for p := skip(0); p < len(text); p = skip(p) {
		start := p
		for p < len(text) && text[p] != '=' && text[p] != ' ' {
			p++
		}
		a := param{key: text[start:p]}
		if p = skip(p); a.key == "" || p == len(text) || text[p] != '=' {
			return nil, fmt.Errorf("parameter %d: not \"key=value\"", len(params)+1)
		}
		p = skip(p + 1)
		a.start = p
		if p < len(text) && text[p] == '\'' {
			value, end, ok := unquote(text, p)
			if !ok {
				return nil, fmt.Errorf("parameter %s: no closing quote, or something right after it", a.key)
			}
			a.value, p = value, end
		} else {
			for p < len(text) && text[p] != ' ' {
				p++
			}
			a.value = text[a.start:p]
		}
		a.end = p
		if a.value == "" {
			return nil, fmt.Errorf("parameter %s: an empty value", a.key)
		}
		params = append(params, a)
	}
	return params, nil
}

// unquote reads a quoted value that starts at p. PgBouncer swallows one character after the closing quote; here it
// must be a blank or the end.
func unquote(text string, p int) (value string, end int, ok bool) {
	var b strings.Builder
	for p++; p < len(text); p++ {
		if text[p] == '\'' {
			if p+1 == len(text) || text[p+1] == ' ' {
				return b.String(), p + 1, true
			}
			if text[p+1] != '\'' {
				return "", 0, false
			}
			p++
		}
		b.WriteByte(text[p])
	}
	return "", 0, false
}
