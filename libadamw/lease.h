// Owns the lending of objects that calls keep for those after them, since to have and fill them anew takes longer than
// all else around a small step. Knows not what is in them.
//
// They are the process's, and no thread's: what belongs to a thread is gone before that thread's last destructors run,
// of which one may step; and it would stay until the thread ends.
#pragma once

namespace adamw {

// Those that nobody has.
class IdleList {
 public:
  struct Node {
    const void *thread = nullptr;  // the last one
    Node *next = nullptr;
  };
  // If it can be, that which this thread had before; null: there is none.
  Node *take();
  // Null, or one that is too many and nobody's any more.
  Node *give_back(Node *node);

 private:
  Node *first_ = nullptr;
};

// A T for a call, as the call before has left it, or a new one of zeros.
template <class T>
class Lease {
 public:
  Lease() : object_(static_cast<Object *>(idle.take())) {
    if (object_ == nullptr) object_ = new Object();
  }
  ~Lease() { delete static_cast<Object *>(idle.give_back(object_)); }
  Lease(const Lease &) = delete;
  Lease &operator=(const Lease &) = delete;
  T &operator*() const { return object_->value; }
  T *operator->() const { return &object_->value; }

 private:
  struct Object : IdleList::Node {
    T value;
  };
  // Never destroyed, nor are those in it: a step may come after every destructor.
  static inline IdleList idle;
  Object *object_;
};

}  // namespace adamw
