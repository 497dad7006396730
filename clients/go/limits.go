package sorteo

import "time"

// Limits of the protocol.
const (
	frameBytesMax  = 8192 // of a frame, without the 4 bytes of its length
	nameBytesMax   = 120  // of a first or last name
	documentMax    = 32   // characters, all of them ASCII
	numberMax      = 1<<32 - 1
	batchRowsMax   = 1000 // a batch has to arrive within the server's request timeout
	protocolNumber = 1    // the version of the protocol that this client speaks
)

// What may be in flight: sent, and not acknowledged yet.
const (
	windowStart    = 4  // batches; one more with every batch acknowledged
	windowMax      = 64 // batches
	windowBytesMax = 1 << 20
)

// Times between attempts, and what a single wait for the draw takes.
const (
	pauseMin = 100 * time.Millisecond
	pauseMax = 3 * time.Second
	waitMax  = 30 * time.Second
)

// conflictsMax is how many conflicts in a row, without progress between them, show that other rows are stored under
// the name of an upload. Fewer may come from batches of a lost connection that the server still carries out.
const conflictsMax = 8

// csvLineBytesMax bounds a line of a CSV file. No valid row comes near it.
const csvLineBytesMax = 8192

// secretBytesMax bounds what is read of a token file, or a key. The longest keys in use have a tenth of it.
const secretBytesMax = 1 << 16

// Defaults of the settings of a Client.
const (
	defaultBatchRows      = 500
	defaultConnectTimeout = 5 * time.Second
	defaultReplyTimeout   = 30 * time.Second
	defaultGiveUpAfter    = 10 * time.Minute
)
