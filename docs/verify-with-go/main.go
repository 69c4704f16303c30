// Verify a fedpriv ledger, or a proof of one entry, without a line of fedpriv.
//
//	verify-with-go [-entry N] [-witness VKEY]... [-kept FILE] LEDGER VKEY
//	verify-with-go -proof FILE [-witness VKEY]... VKEY
//
// All hashing, tree arithmetic and signatures are those of golang.org/x/mod/sumdb, the code that guards Go's own module
// checksums; what is here reads files and compares. Exit code 0: everything holds; 1: something does not; 2: usage.
//
// It does not know what an entry means, does not look for files that no entry accounts for, and does not read a
// worker's journal. `fedpriv audit verify` does.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// C2SP tlog-tiles fixes the height that Go leaves to each log: 2^8 hashes a tile.
const height, width = 8, 256

func main() {
	var witnesses []note.Verifier
	flag.Func("witness", "require the cosignature of this witness: on -kept or -proof if given, else on the ledger", func(vkey string) error {
		witness, err := newCosigner(vkey)
		witnesses = append(witnesses, witness)
		return err
	})
	entry := flag.Int64("entry", -1, "also prove that this entry is in the ledger, and print it")
	kept := flag.String("kept", "", "also check that the ledger extends this signed checkpoint, kept elsewhere")
	proof := flag.String("proof", "", "check this proof file instead of a ledger")
	flag.Parse()
	if flag.NArg() != 2 && !(flag.NArg() == 1 && *proof != "") {
		flag.Usage()
		os.Exit(2)
	}
	owner, err := note.NewVerifier(flag.Arg(flag.NArg() - 1))
	if err == nil {
		if *proof != "" {
			err = checkProof(*proof, owner, witnesses)
		} else {
			err = checkLedger(flag.Arg(0), owner, witnesses, *entry, *kept)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

func checkLedger(folder string, owner note.Verifier, witnesses []note.Verifier, entry int64, kept string) error {
	signed, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return err
	}
	// A worker signs a newer checkpoint when it stops, so the one that was cosigned is usually the one that was kept.
	on := witnesses
	if kept != "" {
		on = nil
	}
	tree, err := open(signed, owner, on)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	// First from the entries: every hash of the tree is computed here, none is believed.
	stored := hashes{}
	entries, err := readEntries(folder, tree.N)
	if err != nil {
		return err
	}
	for n, content := range entries {
		more, err := tlog.StoredHashes(int64(n), content, stored)
		if err != nil {
			return err
		}
		stored = append(stored, more...)
	}
	root, err := tlog.TreeHash(tree.N, stored)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return fmt.Errorf("the %d entries have the root %v, the checkpoint signs %v", tree.N, root, tree.Hash)
	}
	fmt.Printf("entries: %d hash to the signed root %v\n", tree.N, root)
	// Then the tiles: each has to be what these hashes yield. Not read through tlog.TileHashReader, which before x/mod
	// 0.40.0 does not authenticate every tile that it reads (CVE-2026-56865).
	for level, count := 0, tree.N; count > 0; level, count = level+1, count/width {
		for first := int64(0); first < count; first += width {
			tile := tlog.Tile{H: height, L: level, N: first / width, W: int(min(width, count-first))}
			if err := compareTile(folder, tile, stored); err != nil {
				return err
			}
		}
	}
	fmt.Println("tiles: all that the checkpoint needs hold the same hashes")
	if entry >= 0 {
		path, err := tlog.ProveRecord(tree.N, entry, stored)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(path, tree.N, tree.Hash, entry, tlog.RecordHash(entries[entry])); err != nil {
			return fmt.Errorf("entry %d: %w", entry, err)
		}
		fmt.Printf("entry %d: included, by a proof of %d hashes: %s\n", entry, len(path), entries[entry])
	}
	if kept != "" {
		return checkKept(kept, owner, witnesses, tree, stored)
	}
	return nil
}

func compareTile(folder string, tile tlog.Tile, stored hashes) error {
	content, err := os.ReadFile(filepath.Join(folder, path(tile)))
	if err != nil {
		return err
	}
	expected, err := tlog.ReadTileData(tile, stored)
	if err != nil {
		return err
	}
	if !bytes.Equal(content, expected) {
		return fmt.Errorf("%s is not what the entries yield", path(tile))
	}
	return nil
}

// checkKept proves that the ledger continues a checkpoint that somebody else kept: what shows a rollback.
func checkKept(file string, owner note.Verifier, witnesses []note.Verifier, tree tlog.Tree, stored hashes) error {
	signed, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	old, err := open(signed, owner, witnesses)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if old.N > tree.N {
		return fmt.Errorf("rolled back: a checkpoint of %d entries was kept, the ledger has %d", old.N, tree.N)
	}
	path, err := tlog.ProveTree(tree.N, old.N, stored)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(path, tree.N, tree.Hash, old.N, old.Hash); err != nil {
		return fmt.Errorf("rewritten: the ledger does not extend the checkpoint of %d entries that was kept: %w", old.N, err)
	}
	fmt.Printf("kept: the ledger extends the checkpoint of %d entries in %s\n", old.N, file)
	return nil
}

// checkProof checks a C2SP tlog-proof, which holds the entry itself as its extra data, without any ledger.
func checkProof(file string, owner note.Verifier, witnesses []note.Verifier) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, signed, _ := bytes.Cut(content, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("this is no proof with its entry")
	}
	entry, err1 := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	index, err2 := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err1 != nil || err2 != nil {
		return errors.New("lines 2 and 3 are not the entry and its index")
	}
	path := tlog.RecordProof{}
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		path = append(path, hash)
	}
	tree, err := open(signed, owner, witnesses)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return err
	}
	fmt.Printf("entry %d of %d: included: %s\n", index, tree.N, entry)
	return nil
}

// open returns the tree that a checkpoint signs, and says who signed it. The owner and every witness must have.
func open(signed []byte, owner note.Verifier, witnesses []note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(signed, note.VerifierList(append(witnesses, owner)...))
	if err != nil {
		return tlog.Tree{}, err
	}
	by := map[string][]byte{}
	for _, signature := range opened.Sigs {
		by[signature.Name], _ = base64.StdEncoding.DecodeString(signature.Base64)
	}
	for _, required := range append(witnesses, owner) {
		if by[required.Name()] == nil {
			return tlog.Tree{}, fmt.Errorf("%s did not sign it", required.Name())
		}
	}
	// tlog.ParseTree reads the first line of Go's own log only; C2SP puts the origin there.
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != owner.Name() {
		return tlog.Tree{}, fmt.Errorf("not three lines that begin with %q: %q", owner.Name(), opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, err
	}
	fmt.Printf("checkpoint: signed by %s: %d entries, root %v\n", owner.Name(), size, root)
	for _, witness := range witnesses {
		seconds := binary.BigEndian.Uint64(by[witness.Name()][4:])
		fmt.Printf("checkpoint: cosigned by %s at %s\n", witness.Name(), time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339))
	}
	return tlog.Tree{N: size, Hash: root}, nil
}

// readEntries returns the entries of every bundle: each after its length as a big-endian uint16.
func readEntries(folder string, size int64) ([][]byte, error) {
	var entries [][]byte
	for int64(len(entries)) < size {
		tile := tlog.Tile{H: height, L: -1, N: int64(len(entries)) / width, W: int(min(width, size-int64(len(entries))))}
		content, err := os.ReadFile(filepath.Join(folder, path(tile)))
		if err != nil {
			return nil, err
		}
		for n := 0; n < tile.W; n++ {
			if len(content) < 2 || len(content) < 2+int(binary.BigEndian.Uint16(content)) {
				return nil, fmt.Errorf("%s is cut off in entry %d", path(tile), len(entries))
			}
			end := 2 + int(binary.BigEndian.Uint16(content))
			entries = append(entries, content[2:end])
			content = content[end:]
		}
		if len(content) > 0 {
			return nil, fmt.Errorf("%s has %d bytes too many", path(tile), len(content))
		}
	}
	return entries, nil
}

// path returns where C2SP tlog-tiles keeps a tile: as Go does, without the height, and entries as "entries".
func path(tile tlog.Tile) string {
	name := strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))
	return filepath.Join("tile", strings.Replace(name, "data/", "entries/", 1))
}

// hashes are those of a whole tree, computed here, in the order of tlog.StoredHashIndex.
type hashes []tlog.Hash

func (all hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, index := range indexes {
		found = append(found, all[index])
	}
	return found, nil
}

// cosigner verifies C2SP cosignatures, key type 4, which the note package leaves to its callers.
type cosigner struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("not name+id+key")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	id, err2 := strconv.ParseUint(parts[1], 16, 32)
	if err != nil || err2 != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return nil, errors.New("not the key of a witness")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if binary.BigEndian.Uint32(sum[:]) != uint32(id) {
		return nil, errors.New("the key does not match its id")
	}
	return &cosigner{parts[0], uint32(id), key[1:]}, nil
}

func (witness *cosigner) Name() string { return witness.name }

func (witness *cosigner) KeyHash() uint32 { return witness.id }

func (witness *cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(signature)
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", seconds, text)
	return ed25519.Verify(witness.key, []byte(message), signature[8:])
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}
