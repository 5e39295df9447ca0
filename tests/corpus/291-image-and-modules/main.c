static const char name[] __attribute__((section(".modinfo"), used)) = "name=thing";
int say(int x);
int probe(int x)
{
#ifdef NEW
	return say(x + 5) * 3;
#else
	return say(x + 4) * 3;
#endif
}
