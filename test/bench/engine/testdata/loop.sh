# Words, arithmetic, functions, tests and substitutions.
collatz() {
	n=$1 steps=0
	while [ "$n" -ne 1 ]; do
		if [ $((n % 2)) -eq 0 ]; then n=$((n / 2)); else n=$((3 * n + 1)); fi
		steps=$((steps + 1))
	done
	echo "$steps"
}
total=0 i=1
while [ $i -le 60 ]; do
	s=$(collatz $i)
	total=$((total + s))
	case $s in *7) name="${name%x}y$i" ;; *) name="${name#y}x" ;; esac
	i=$((i + 1))
done
echo "$total ${#name}"
