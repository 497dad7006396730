package sorteo

import (
	"fmt"
	"strconv"
	"strings"
)

// decodeHello returns the version of the server's protocol, and the words for what it can do.
func decodeHello(line string) (version int64, words []string, err error) {
	fields, err := accepted(line, "HELLO", 2)
	if err != nil {
		return 0, nil, err
	}
	if version, err = decodeNumber(line, fields[0]); err != nil {
		return 0, nil, err
	}
	return version, splitList(fields[1]), nil
}

func decodeAuth(line string) error {
	_, err := accepted(line, "ACK", 0)
	if reasonOf(err) == ReasonUnknown {
		return protocolError("the server does not take tokens: auth is off there, or it is too old", line)
	}
	return err
}

func decodeStatus(line string) (Status, error) {
	fields, err := accepted(line, "STATUS", 5)
	if err != nil {
		return Status{}, err
	}
	if fields[1] != "open" && fields[1] != "drawn" {
		return Status{}, protocolError("a draw that is neither open nor drawn", line)
	}
	status := Status{Drawn: fields[1] == "drawn"}
	for i, number := range map[int]*int64{0: &status.Draw, 2: &status.Done, 3: &status.Expected, 4: &status.Bets} {
		if *number, err = decodeNumber(line, fields[i]); err != nil {
			return Status{}, err
		}
	}
	return status, nil
}

// decodeResume returns the number of rows of an upload that are stored.
func decodeResume(line string) (nextRow int64, err error) {
	fields, err := accepted(line, "RESUME", 1)
	if err != nil {
		return 0, err
	}
	return decodeNumber(line, fields[0])
}

// decodeBatch returns the number of rows that were stored.
func decodeBatch(line string) (rows int64, err error) {
	fields, err := accepted(line, "ACK_BATCH", 1)
	if err != nil {
		return 0, err
	}
	return decodeNumber(line, fields[0])
}

func decodeDone(line string) error {
	_, err := accepted(line, "ACK_DONE", 0)
	return err
}

// A page is a part of the winners, with the place where the next one begins.
type page struct {
	documents []string
	next      int64
	last      bool // there is no next page
}

func decodePage(line string) (page, error) {
	fields, err := accepted(line, "WINNERS", 2)
	if err != nil {
		return page{}, err
	}
	p := page{documents: splitList(fields[0])}
	for _, document := range p.documents {
		if document == "" {
			return page{}, protocolError("an empty document", line)
		}
	}
	if fields[1] == "" {
		p.last = true
		return p, nil
	}
	p.next, err = decodeNumber(line, fields[1])
	return p, err
}

// accepted returns the fields of a reply behind VERB|OK, of which there must be as many as given. The error is a
// *RefusedError or a *ProtocolError. A request that the server cannot make sense of is refused with the verb ACK.
func accepted(line, verb string, count int) ([]string, error) {
	fields := strings.Split(line, "|")
	if len(fields) < 2 || fields[0] != verb && fields[0] != "ACK" {
		return nil, protocolError("not a reply to the request", line)
	}
	switch rest := fields[2:]; {
	case fields[1] == "ERR":
		return nil, refusal(line, fields[0], rest)
	case fields[1] != "OK" || fields[0] != verb:
		return nil, protocolError("not a reply to the request", line)
	case len(rest) != count:
		return nil, protocolError(fmt.Sprintf("a reply with %d fields instead of %d", len(rest), count), line)
	default:
		return rest, nil
	}
}

// refusal returns the error of a reply whose fields behind VERB|ERR are given.
func refusal(line, verb string, fields []string) error {
	if verb == "ACK_BATCH" {
		// The count is the announced one, which the client knows.
		if len(fields) == 0 || fields[0] == "" || strings.Trim(fields[0], "0123456789") != "" {
			return protocolError("a refusal without its count", line)
		}
		fields = fields[1:]
	}
	if len(fields) == 0 || len(fields) > 2 {
		return protocolError("a refusal without one reason", line)
	}
	refused := &RefusedError{}
	code := fields[0]
	if text, found := cutPrefix(code, "row "); found {
		row, rest, _ := strings.Cut(text, ": ")
		number, err := decodeNumber(line, row)
		if err != nil {
			return err
		}
		refused.Row, code = number, rest
	}
	if code == "" || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return protocolError("a refusal without a reason", line)
	}
	refused.Reason = Reason(code)
	if len(fields) == 2 {
		refused.Detail = fields[1]
	}
	return refused
}

// decodeNumber reads decimal digits and nothing else, up to 2^63-1.
func decodeNumber(line, digits string) (int64, error) {
	number, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, protocolError("a reply without a number where one belongs", line)
	}
	return int64(number), nil
}

// splitList splits a list, which may be empty, at its commas.
func splitList(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func cutPrefix(text, prefix string) (rest string, found bool) {
	if !strings.HasPrefix(text, prefix) {
		return text, false
	}
	return text[len(prefix):], true
}
