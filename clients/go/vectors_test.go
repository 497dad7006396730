package sorteo

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// vectors is a file with messages of one dialect: their bytes and their meaning.
type vectors struct {
	Requests []vector `json:"requests"`
	Replies  []vector `json:"replies"`
}

type vector struct {
	Name    string          `json:"name"`
	Hex     string          `json:"hex"`
	Meaning json.RawMessage `json:"meaning"`
}

func (v vector) bytes(t *testing.T) []byte {
	t.Helper()
	message, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatal(v.Name, err)
	}
	return message
}

// requestMeaning is that of a request of either dialect. What a request does not have is nil.
type requestMeaning struct {
	Request  string       `json:"request"`
	Agency   *int64       `json:"agency"`
	Bet      *betMeaning  `json:"bet"`
	Bets     []betMeaning `json:"bets"`
	Upload   *string      `json:"upload"`
	FirstRow *int64       `json:"first_row"`
	Draw     *int64       `json:"draw"`
	Count    *uint64      `json:"count"`
	After    *int64       `json:"after"`
	MaxMS    *int64       `json:"max_ms"`
	Token    *string      `json:"token"`
}

type betMeaning struct {
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	Document  string `json:"document"`
	Birthdate string `json:"birthdate"`
	Number    uint32 `json:"number"`
	Agency    *int64 `json:"agency,omitempty"` // only in the counted dialect
}

func (b betMeaning) bet() Bet { return Bet{b.FirstName, b.LastName, b.Document, b.Birthdate, b.Number} }

func readVectors(t *testing.T, dialect string) vectors {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "vectors", dialect+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestFramedVectors(t *testing.T) {
	v := readVectors(t, "framed")
	expectVerbs(t, v.Requests, "request", "AUTH", "BET", "BATCH", "RESUME", "DONE", "GET_WINNERS", "WAIT_WINNERS", "HELLO", "STATUS")
	expectVerbs(t, v.Replies, "reply", "ACK", "ACK_BATCH", "RESUME", "ACK_DONE", "WINNERS", "HELLO", "STATUS")
	testRequests(t, v.Requests, encodeFramed)
	testReplies(t, v.Replies, func(r io.Reader) (any, error) {
		line, err := readFrame(r)
		if err != nil {
			return nil, err
		}
		return framedMeaning(line)
	})
}

func TestCountedVectors(t *testing.T) {
	v := readVectors(t, "counted")
	expectVerbs(t, v.Requests, "request", "AUTH", "BETS", "GET_WINNERS")
	expectVerbs(t, v.Replies, "reply", "ACK", "WINNERS", "ERROR_BUSY", "ERROR_INVALID_BATCH", "ERROR_EMPTY_BATCH",
		"ERROR_LOTTERY_HASNT_ENDED", "ERROR_INVALID_GET_WINNERS", "ERROR_INVALID_AGENCY", "ERROR_UNAUTHORIZED")
	testRequests(t, v.Requests, encodeCounted)
	testReplies(t, v.Replies, func(r io.Reader) (any, error) {
		payload, err := readCounted(r)
		if err != nil {
			return nil, err
		}
		return countedMeaning(payload)
	})
}

// expectVerbs makes sure that every verb occurs.
func expectVerbs(t *testing.T, messages []vector, key string, verbs ...string) {
	t.Helper()
	found := make(map[string]bool)
	for _, v := range messages {
		var meaning map[string]json.RawMessage
		if err := json.Unmarshal(v.Meaning, &meaning); err != nil {
			t.Fatal(v.Name, err)
		}
		var verb string
		if err := json.Unmarshal(meaning[key], &verb); err != nil {
			t.Fatal(v.Name, err)
		}
		found[verb] = true
	}
	for _, verb := range verbs {
		if !found[verb] {
			t.Errorf("no %s has the verb %s", key, verb)
		}
	}
}

func testRequests(t *testing.T, requests []vector, encode func(requestMeaning) ([]byte, error)) {
	for _, v := range requests {
		decoder := json.NewDecoder(bytes.NewReader(v.Meaning))
		decoder.DisallowUnknownFields()
		var meaning requestMeaning
		if err := decoder.Decode(&meaning); err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		encoded, err := encode(meaning)
		if err != nil || !bytes.Equal(encoded, v.bytes(t)) {
			t.Errorf("%s: %q instead of %q, %v", v.Name, encoded, v.bytes(t), err)
		}
	}
}

func testReplies(t *testing.T, replies []vector, read func(io.Reader) (any, error)) {
	for _, v := range replies {
		message := v.bytes(t)
		meaning, err := read(iotest.OneByteReader(bytes.NewReader(message)))
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		encoded, err := json.Marshal(meaning)
		if err != nil {
			t.Fatal(v.Name, err)
		}
		if !reflect.DeepEqual(plainJSON(t, encoded), plainJSON(t, v.Meaning)) {
			t.Errorf("%s: %s instead of %s", v.Name, encoded, v.Meaning)
		}
		for cut := range message {
			_, err := read(bytes.NewReader(message[:cut]))
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, cut after %d bytes: %v", v.Name, cut, err)
			}
		}
	}
}

// plainJSON decodes JSON without losing digits of a number.
func plainJSON(t *testing.T, text []byte) (value any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// encodeFramed uses the encoders of the client for every form that the client sends.
func encodeFramed(m requestMeaning) ([]byte, error) {
	switch {
	case m.Request == "BATCH":
		frames := appendFrame(nil, line(m.Request, m.Agency, len(m.Bets), m.Upload, m.FirstRow, m.Draw))
		if m.Draw != nil {
			frames = appendFrame(nil, batchHeader(uint32(*m.Agency), len(m.Bets), *m.Upload, *m.FirstRow, *m.Draw))
		}
		for _, bet := range m.Bets {
			if err := bet.bet().Validate(); err != nil {
				return nil, err
			}
			frames = appendRow(frames, bet.bet())
		}
		return frames, nil
	case m.Request == "BET":
		return appendFrame(nil, line(m.Request, m.Agency, string(m.Bet.bet().appendCanonical(nil)))), nil
	case m.Request == "AUTH":
		return appendFrame(nil, authRequest(uint32(*m.Agency), *m.Token)), nil
	case m.Request == "HELLO":
		return appendFrame(nil, helloRequest), nil
	case m.Request == "STATUS":
		return appendFrame(nil, statusRequest), nil
	case m.Request == "RESUME" && m.Draw != nil:
		return appendFrame(nil, resumeRequest(uint32(*m.Agency), *m.Upload, *m.Draw)), nil
	case m.Request == "DONE" && m.Draw != nil && m.Count == nil:
		return appendFrame(nil, line(m.Request, m.Agency, "", m.Draw)), nil
	case m.Request == "DONE" && m.Draw != nil:
		return appendFrame(nil, doneRequest(uint32(*m.Agency), int64(*m.Count), *m.Draw)), nil
	case m.Request == "WAIT_WINNERS" && m.Draw != nil:
		return appendFrame(nil, waitRequest(uint32(*m.Agency), *m.MaxMS, *m.Draw)), nil
	case m.Request == "GET_WINNERS" && m.Draw != nil:
		return appendFrame(nil, pageRequest(uint32(*m.Agency), *m.After, *m.Draw)), nil
	}
	return appendFrame(nil, line(m.Request, m.Agency, m.Upload, m.Count, m.After, m.MaxMS)), nil
}

// line joins a verb and those of its fields that there are.
func line(verb string, fields ...any) string {
	for _, field := range fields {
		switch value := reflect.ValueOf(field); {
		case value.Kind() != reflect.Pointer:
			verb += fmt.Sprintf("|%v", field)
		case !value.IsNil():
			verb += fmt.Sprintf("|%v", value.Elem())
		}
	}
	return verb
}

type object = map[string]any

// framedMeaning uses the decoders of the client for every form that the client receives.
func framedMeaning(line string) (object, error) {
	fields := strings.Split(line, "|")
	meaning := object{"reply": fields[0], "ok": true}
	var err error
	switch fields[0] {
	case "ACK":
		_, err = accepted(line, "ACK", 0)
	case "ACK_BATCH":
		meaning["count"], err = decodeBatch(line)
	case "ACK_DONE":
		err = decodeDone(line)
	case "RESUME":
		meaning["next_row"], err = decodeResume(line)
	case "HELLO":
		meaning["version"], meaning["words"], err = decodeHello(line)
	case "STATUS":
		var status Status
		status, err = decodeStatus(line)
		meaning["draw"], meaning["state"], meaning["done"] = status.Draw, "open", status.Done
		meaning["expected"], meaning["bets"] = status.Expected, status.Bets
		if status.Drawn {
			meaning["state"] = "drawn"
		}
	case "WINNERS":
		err = winnersMeaning(line, meaning)
	}
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return meaning, err
	}
	meaning = object{"reply": fields[0], "ok": false, "reason": refused.Reason}
	if refused.Row != 0 {
		meaning["row"] = refused.Row
	}
	if refused.Detail != "" {
		meaning["detail"] = refused.Detail
	}
	if fields[0] == "ACK_BATCH" {
		meaning["count"] = json.Number(fields[2])
	}
	return meaning, nil
}

func winnersMeaning(line string, meaning object) error {
	if strings.Count(line, "|") == 2 {
		fields, err := accepted(line, "WINNERS", 1)
		if err == nil {
			meaning["documents"] = orEmpty(splitList(fields[0]))
		}
		return err
	}
	p, err := decodePage(line)
	meaning["documents"], meaning["next"] = orEmpty(p.documents), p.next
	if p.last {
		meaning["next"] = nil
	}
	return err
}

// orEmpty makes an empty list one in JSON too.
func orEmpty(list []string) []string { return append([]string{}, list...) }
