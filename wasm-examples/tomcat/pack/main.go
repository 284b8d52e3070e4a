// Command pack makes a web application archive of a directory, the same bytes
// from the same files:
//
//	pack OUT.war DIR
package main

import (
	"archive/zip"
	"errors"
	"io"
	"io/fs"
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: pack OUT.war DIR")
	}
	if err := pack(os.Args[1], os.DirFS(os.Args[2])); err != nil {
		log.Fatal(err)
	}
}

func pack(out string, dir fs.FS) (err error) {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	z := zip.NewWriter(f)
	err = fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		header := &zip.FileHeader{Name: name, Method: zip.Deflate}
		header.SetMode(0o644 | info.Mode()&0o111)
		w, err := z.CreateHeader(header)
		if err != nil {
			return err
		}
		in, err := dir.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, in)
		return errors.Join(err, in.Close())
	})
	return errors.Join(err, z.Close(), f.Close())
}
