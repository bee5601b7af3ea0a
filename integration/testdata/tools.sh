# Uses a folder with everyday tools. Run in an empty folder of the local disk and in one of a drive, it has to print the same
# and leave the same tree: so it prints nothing that depends on the time, on inode numbers or on how big a folder is.
# The umask is 022.

# step runs one script and prints all that it says and how it ends.
step() {
	printf '== %s\n' "$1"
	bash -c "$2" 2>&1
	printf 'exit %d\n' $?
}
# show is stat without what differs between any two folders.
show() {
	for name; do
		format='%n: %F %a %s bytes %h links'
		[[ -d $name && ! -L $name ]] && format='%n: %F %a %h links'
		stat -c "$format" -- "$name"
	done
}
export -f show

step 'write, append, overwrite' '
	echo one >a; echo two >>a; cat >>a <<<three; cat a
	printf XX | dd of=a conv=notrunc bs=1 seek=4 status=none; cat a
	echo short >a; cat a; : >empty; show a empty; cat nothing'
step 'appends by many at once all arrive' '
	for i in {1..8}; do (for j in {1..100}; do echo "$i $j" >>log; done) & done; wait
	sort -n -k1,1 -k2,2 log | sha256sum; wc -l <log'
step 'dd' '
	dd if=/dev/zero of=zeros bs=64K count=10 status=none
	dd if=/dev/zero bs=1 count=0 seek=1M of=hole status=none
	seq 100000 | dd of=numbers bs=4096 conv=fsync status=none
	dd if=numbers bs=1000 skip=3 count=1 status=none | sha256sum
	seq 5 | dd of=numbers bs=1 seek=333333 conv=notrunc,fdatasync status=none
	dd if=numbers of=copy bs=7777 oflag=direct status=none 2>/dev/null || dd if=numbers of=copy bs=7777 status=none
	cmp numbers copy; show zeros hole numbers copy; sha256sum zeros hole numbers'
step 'truncate' '
	seq 1000 >t; truncate -s 100 t; tail -c 20 t; truncate -s 200 t; tail -c 120 t | od -c | tail -4
	truncate -s +50 t; truncate -s %64 t; truncate -s 0 t; truncate -s 3G t; show t
	truncate -s 10 nowhere/t; truncate -s -10 t; truncate -s 0 t'
step 'sparse files' '
	truncate -s 24M sparse; printf x | dd of=sparse bs=1 seek=20M conv=notrunc status=none
	cp --sparse=always sparse sparse-copy; cmp sparse sparse-copy; show sparse sparse-copy
	(( $(stat -c %b sparse-copy) * 512 <= 1 << 20 )) && echo still sparse
	fallocate --punch-hole -o 20M -l 1M sparse; cmp sparse sparse-copy
	fallocate -l 1M reserved; show reserved; fallocate --keep-size -l 2M reserved; show reserved
	fallocate --zero-range -o 0 -l 4K numbers; head -c 4096 numbers | tr -d "\0" | wc -c'
step 'folders' '
	mkdir d d/e d/e/f; mkdir d; mkdir -p d/e/g/h; rmdir d; rmdir d/e/f; mkdir -m 750 m; mkdir nowhere/x
	show d d/e d/e/g m; ls -A d/e; find d | sort; rmdir a; cd a; ls nowhere'
step 'mv within and between folders' '
	echo x >d/x; mv d/x d/e/y; ls d d/e; mv d/e d2; ls . d2; mv d2 d2/inside; mkdir full; echo z >full/z
	mkdir target; mv -T full target; ls target; mv -T d2 target; mv -n a numbers; mv a target; ls target
	mkdir into; mv target into; find into | sort; mv into/target/z a; cat a; mv nowhere a; mv a into; mv into/a a'
step 'mv over a file that is open' '
	echo old >name; echo new >other; exec 3<name; mv other name; cat <&3; cat name; exec 3<&-
	echo gone >unlinked; exec 3<>unlinked; rm unlinked; cat <&3; echo more >&3; stat -L -c "%h %s" /dev/fd/3; ls unlinked'
step 'times' '
	touch -d "2001-02-03 04:05:06.123456789 UTC" a; stat -c "%x %y" a
	touch -a -d "1999-12-31 23:59:59.999999999 UTC" a; touch -m -d @1 a; stat -c "%x %y" a
	touch -d "1960-01-01 UTC" d; stat -c %y d; touch -d "2040-01-01 UTC" m; stat -c %y m
	touch -r a b; stat -c "%x %y" b; touch -c nowhere; touch -h -d @7 link0; ln -s a link0; touch -h -d @7 link0; stat -c %Y link0 a
	cp -p a with-time; stat -c "%x %y" with-time; cp --preserve=mode a without; [[ without -nt a ]] && echo newer
	before=$(stat -c %Y m); touch m/new; [[ $(stat -c %Y m) -lt $before ]] && echo the folder has changed since'
step 'modes' '
	echo "#!/bin/sh
echo ran" >run; chmod 755 run; ./run; chmod u-x,g=w,o= run; show run; chmod 4755 run; chmod g+s d; chmod +t d; show run d
	mkdir d/sub; chmod 0 without; show without; cat without; touch locked; chmod 400 locked; echo x >locked; mkdir -m 0 closed; ls closed; rmdir closed; chmod -R u=rwX,go=rX d; find d -printf "%p %m\n" | sort
	(umask 077; echo >private; mkdir private-folder); show private private-folder; chmod 644 nowhere; install -m 640 a installed; show installed'
step 'owners and devices' '
	stat -c "%u %g" a d; chown 1:2 a; chgrp 3 d; chown -h 4 link0; stat -c "%n %u %g" a d link0; mknod null c 1 3; mknod disk b 8 17
	stat -c "%n %F %t %T" null disk; chmod 6755 run; chown 1:1 run; show run; chmod 2775 d; touch d/of-group; stat -c "%u %g" d/of-group
	chown -R 0:0 a d link0 run 2>&1 | sort; stat -c "%n %u %g" a d link0 run d/of-group; rm -f null disk d/of-group'
step 'hard links' '
	ln a hard; ln a d/hard2; show a hard d/hard2; echo changed >hard; cat a d/hard2; [[ a -ef d/hard2 ]] && echo one file
	rm a; show hard; ln hard a; ln d dlink; ln a hard; ln nowhere x; ln -f a b; show a'
step 'symbolic links' '
	ln -s a soft; ln -s nowhere dangling; ln -s d dsoft; ln -s ../up up; ln -s "$(printf "%0200d" 1)" long; readlink soft dangling dsoft up
	cat soft; cat dangling; ls dsoft/; cp -d soft soft2; readlink soft2; show soft dangling dsoft long; rm soft; cat a
	ln -s loop loop; cat loop; ln -sfn m dsoft; readlink dsoft; ln -s "" none; ln -s a soft; echo through >soft; cat a; chmod 600 soft; show a'
step 'named pipes and sockets' '
	mkfifo pipe; mkfifo pipe; show pipe; (echo through the pipe >pipe) & cat pipe; wait; mkfifo -m 600 pipe2; show pipe2; rm pipe2'
step 'extended attributes' '
	setfattr -n user.title -v "A title" a; setfattr -n user.bytes -v 0x00ff0a a; setfattr -n user.empty a; getfattr -d -m "^user[.][^m]" a
	getfattr -n user.title --only-values a; echo; getfattr -n user.none a; setfattr -x user.empty a; setfattr -x user.empty a
	setfattr -n user.title -v other a; setfattr -n user.x -v y d; getfattr -d -m "^user[.][^m]" d; setfattr -n nonsense -v x a; setfattr -n user.l -v x -h soft
	cp --preserve=all a attributes; getfattr -d -m "^user[.][^m]" attributes; mv attributes d; getfattr -d -m "^user[.][^m]" d/attributes
	setfattr -n user.large -v "$(head -c 2000 /dev/zero | tr "\0" v)" a; getfattr -n user.large --only-values a | wc -c
	setfattr -n "user.$(printf %0300d 1)" -v x a'
step 'names' '
	mkdir names; cd names; touch -- "a b" "-dash" "$(printf "new\nline")" "$(printf "latin1-\351")" "ünïcödé 😀" "*" "?" "\\" .hidden ... "quote\"d"
	n=$(printf %0255d 7); touch "$n"; touch "${n}8"; mkdir "${n}8"; ls "${n}8"; mv "$n" "${n}8"; ls -A | LC_ALL=C sort | od -c | sha256sum
	rm -- -dash "*"; ls -A | wc -l; touch e\ E E e; ls -A | wc -l; mkdir deep; cd deep
	for i in {1..60}; do mkdir directory-number-$i; cd directory-number-$i; done; echo down >here; cat here'
step 'sed and editors' '
	seq 10 >s; sed -i "s/5/five/;3d" s; cat s; sed -i.bak 1d s; ls s*; sort -r -o s s; head -2 s; sort -n s.bak | split -l 4 - part-; ls part-*
	printf "one\ntwo\n" >p; cp p q; sed -i "s/two/2/" q; diff -u --label p --label q p q >patch; patch -s p patch 2>/dev/null || cp q p; cmp p q; rm -f p.orig
	tee x1 x2 <<<both >/dev/null; cat x1 x2; cat x1 x2 >x1; cat x1'
step 'tar' '
	tar --sort=name --xattrs -cf all.tar a d names hard soft dangling pipe run sparse; mkdir out; tar --xattrs -xpf all.tar -C out; echo $?
	(cd out; find . -printf "%p %y %m %s %n %l\n" | grep -av " d " | LC_ALL=C sort | sha256sum); cmp out/sparse sparse
	diff -r --no-dereference names out/names && getfattr -d -m "^user[.][^m]" out/a | wc -l; [[ out/a -ef out/hard ]] && echo linked; tar --sort=name -czf z.tgz out; tar -tzf z.tgz | wc -l
	tar -xzf z.tgz -O out/a; tar -Scf sparse.tar sparse; (( $(stat -c %s sparse.tar) < 1 << 20 )) && echo small; rm all.tar z.tgz sparse.tar'
step 'zip' '
	zip -qry z.zip d names/.hidden soft run; unzip -qq z.zip -d unzipped; find unzipped | LC_ALL=C sort; readlink unzipped/soft
	unzip -t z.zip | tail -1; zip -q z.zip a; unzip -l z.zip | grep -c hard2; unzip -qq z.zip nothing -d unzipped; rm z.zip'
step 'cp' '
	cp -a d d-copy; diff -r d d-copy; cp -al d d-linked; show d-linked/hard2; cp -r --reflink=auto numbers numbers2; cmp numbers numbers2
	cp a nowhere/; cp d x1; cp a a; cp -u a b; cp -s a nowhere; cp -b x2 x1; ls x1*; cp -rT names names-copy; diff -r names names-copy
	cp /dev/null emptied; show emptied; mkdir full; cp -t full a b x1; ls full; cp --parents d/hard2 full; find full | sort'
step 'rsync' '
	own=--filter=-x_user.mediafs.*
	rsync -aHX $own d names hard soft rs/ && rsync -aHXin $own d names hard soft rs/; echo x >>rs/hard; touch -d @5 rs/hard
	rsync -ai hard rs/; rsync -a --delete names/ rs/; diff -r names rs; echo changed >rs/.hidden; rsync -ac --inplace names/ rs/; cat rs/.hidden'
step 'du and df' '
	du -b a numbers sparse; dd if=/dev/urandom of=mega bs=1M count=3 conv=fsync status=none; du -k mega; du -k --apparent-size mega t
	df . >/dev/null; (( $(df --output=avail -k . | tail -1) > 1000 )) && echo room; stat -f -c "%l" .; rm mega'
step 'find' '
	find . -type f -size +100k | sort; find . -type l | sort; find . -type p; find . -newermt 2030-01-01 | sort; find . -perm 640; find . -links +2 -type f | sort
	find . -empty -type f | LC_ALL=C sort | head -5; find names -name "*[[:space:]]*" | LC_ALL=C sort; find . -samefile a | sort'
step 'locks' '
	exec 9>lock; flock -n 9 && echo locked; flock -n lock true || echo held elsewhere; flock -u 9; flock -n lock echo free
	echo pid >lock2; (set -C; echo x >lock2) 2>/dev/null || echo noclobber'
step 'removing' '
	rm nowhere; rm -f nowhere; rm d; rm -r d-copy d-linked out; rmdir full; rm -rf names-copy/deep; ls names-copy | wc -l; unlink emptied; unlink d
	touch ro; chmod 444 ro; rm -f ro; mkdir many; (cd many; for i in {1..1500}; do : >"file $i"; done; ls | wc -l; rm -rf ../many/*; ls -A | wc -l)
	rm -rf many; ls -d many'
